"use strict";
// Theme and split; in the head, so that nothing flashes.
const remembered = (() => { try { return localStorage; } catch { return null; } })(); // a file may be denied storage
function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  remembered?.setItem("theme", theme);
  const shown = document.querySelector("#theme span");
  if (shown) shown.textContent = theme;
}
setTheme(remembered?.getItem("theme") ?? "auto");
document.addEventListener("DOMContentLoaded", () => {
  const themes = ["auto", "light", "dark"];
  setTheme(document.documentElement.dataset.theme ?? "auto");
  document.querySelector("#theme").addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % 3]);
  });
  const radios = [...document.querySelectorAll("input[name=split]")];
  const showSplit = () => {
    const chosen = radios.find((radio) => radio.checked);
    if (!chosen) return;
    for (const part of document.querySelectorAll("[data-split]")) part.hidden = part.dataset.split !== chosen.value;
  };
  for (const radio of radios) radio.addEventListener("change", showSplit);
  showSplit();
});
