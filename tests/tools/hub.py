"""A stand-in for the Hugging Face hub."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO = "me/my-tagger"
TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """A stand-in for the part of the hub's interface that publishing uses.

    Weights go to Git LFS, or with ``uses_lfs = False`` into the commit as the other files do.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.uses_lfs = True
        self.visibility = ""
        self.stored: dict[str, bytes] = {}  # by SHA-256
        self.commits: list[dict[str, bytes]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if self._is_known():
            self._answer(200, {"id": REPO, "private": self.server.visibility == "private", "sha": "0" * 40})

    def do_PUT(self) -> None:
        self.server.stored[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_POST(self) -> None:
        body = self._body()
        if not self._is_known():
            return
        if self.path == "/api/repos/create":
            status = 409 if self.server.visibility else 200
            self.server.visibility = self.server.visibility or json.loads(body).get("visibility", "public")
            self._answer(status, {"url": f"{self.server.address}/{REPO}", "name": REPO})
        elif self.path.startswith(f"/api/models/{REPO}/preupload/"):
            files = [{"path": one["path"], "shouldIgnore": False} for one in json.loads(body)["files"]]
            for one in files:
                is_large = self.server.uses_lfs and one["path"].endswith(".safetensors")
                one["uploadMode"] = "lfs" if is_large else "regular"
            self._answer(200, {"files": files})
        elif self.path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}}
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif self.path.startswith(f"/api/models/{REPO}/commit/"):
            lines = [json.loads(line) for line in body.splitlines()]
            commit = {"file": lambda one: base64.b64decode(one["content"]), "lfsFile": self._stored}
            values = [(line["key"], line["value"]) for line in lines if line["key"] in commit]
            self.server.commits.append({value["path"]: commit[key](value) for key, value in values})
            self._answer(200, {"commitUrl": f"{self.server.address}/{REPO}/commit/{'1' * 40}", "commitOid": "1" * 40})
        else:
            self._answer(200, {})

    def _is_known(self) -> bool:
        known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if not known:
            self._answer(401, {"error": "Invalid token"})
        return known

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _stored(self, file: dict[str, Any]) -> bytes:
        return self.server.stored[file["oid"]]

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
