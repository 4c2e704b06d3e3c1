"""Label Studio's and INCEpTION's routes, with requests as their documentation shows them."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from benchmarks.serve import Service, running_service
from inference.predictor import NerPredictor
from tests.tools.runs import FinishedRun

TEXTS = ["anna met bob near paris", "then \U0001f600 carol left new york"]
CONFIG = """<View>
  <Labels name="label" toName="text">
    <Label value="PER" background="red"/><Label value="Place" predicted_values="LOC, GPE"/>
  </Labels>
  <Text name="text" value="$passage"/>
</View>"""
LAYER = "de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity"


@pytest.fixture(scope="module")
def service(crf_run: FinishedRun) -> Iterator[Service]:
    with running_service(crf_run.folder, "--max_texts=8", "--max_characters=2000") as service:
        yield service


@pytest.fixture(scope="module")
def predictor(crf_run: FinishedRun) -> NerPredictor:
    return NerPredictor.load(crf_run.folder, "cpu")


def ask(service: Service, path: str, content: Any = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        if content is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def label_studio_request(texts: list[str], **changes: Any) -> dict[str, Any]:
    """As Label Studio sends it."""
    tasks = [
        {
            "id": number,
            "data": {"passage": text},
            "meta": {},
            "created_at": "2024-06-18T23:45:46.048490Z",
            "is_labeled": False,
            "project": 1,
            "annotations": [],
            "predictions": [],
        }
        for number, text in enumerate(texts)
    ]
    params = {"login": None, "password": None, "context": None}
    request = {"tasks": tasks, "model_version": None, "project": "1.1718754346", "label_config": CONFIG}
    return request | {"params": params} | changes


def test_label_studio_connects(service: Service) -> None:
    assert ask(service, "/label_studio/health") == (200, {"status": "UP", "model_class": "NerPredictor"})
    setup = {"project": "1.1718754346", "schema": CONFIG, "hostname": "http://localhost:8080", "access_token": "a"}
    setup["extra_params"] = ""
    assert ask(service, "/label_studio/setup", setup) == (200, {"model_version": "run"})


def test_label_studio_gets_predictions(service: Service, predictor: NerPredictor) -> None:
    status, body = ask(service, "/label_studio/predict", label_studio_request(TEXTS))
    assert (status, body["model_version"], len(body["results"])) == (200, "run", 2)
    for text, found, entities in zip(TEXTS, body["results"], predictor(TEXTS), strict=True):
        wanted = [one for one in entities if one.type != "ORG"]  # for which there is no label
        assert found["model_version"] == "run"
        assert found["score"] == pytest.approx(min((one.confidence for one in wanted), default=1), abs=1e-5)
        for region, one in zip(found["result"], wanted, strict=True):
            assert (region["from_name"], region["to_name"], region["type"]) == ("label", "text", "labels")
            assert region["value"] == {
                "start": one.start,
                "end": one.end,
                "text": text[one.start : one.end],
                "labels": ["Place" if one.type == "LOC" else one.type],
            }
            assert region["score"] == pytest.approx(one.confidence, abs=1e-5)
    assert any(found["result"] for found in body["results"])


def test_label_studio_events_have_no_effect_and_training_is_refused(service: Service) -> None:
    project = {"id": 1, "label_config": CONFIG, "title": "Names"}
    event = {"action": "ANNOTATION_CREATED", "annotation": {"id": 3}, "task": {"id": 1}, "project": project}
    status, body = ask(service, "/label_studio/webhook", event)
    assert (status, body["status"]) == (200, "ok")
    assert "ANNOTATION_CREATED has no effect" in body["result"]
    status, body = ask(service, "/label_studio/webhook", {"action": "START_TRAINING", "project": project})
    assert (status, list(body)) == (501, ["error"])


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"label_config": "<View/>"}, 422, "expected <Labels"),
        ({"label_config": "<View>"}, 422, "label_config: not XML"),
        ({"label_config": "<!DOCTYPE a [<!ENTITY b 'c'>]><View/>"}, 422, "is refused"),
        ({"tasks": [{"data": {"image": "a.png"}}]}, 422, "tasks.0.data.passage: expected a text"),
        ({"tasks": {}}, 422, "tasks: Input should be a valid list"),
        ({"tasks": [{"data": {"passage": "a"}}] * 9}, 413, "9 texts; a request has at most 8"),
    ],
)
def test_faults_of_label_studio_requests(service: Service, changes: Any, status: int, message: str) -> None:
    found, body = ask(service, "/label_studio/predict", label_studio_request(TEXTS, **changes))
    assert (found, message in body["error"]) == (status, True), body


def features(*named: str) -> str:
    return "".join(
        f"<featureDescription><name>{name}</name><description/><rangeTypeName>uima.cas.{kind}</rangeTypeName>"
        "</featureDescription>"
        for name, kind in (one.split(":") for one in named)
    )


def inception_request(text: str, layer: str = LAYER, feature: str = "value") -> dict[str, Any]:
    """The example of INCEpTION's developer guide, with the layer that it names in the type system."""
    of_layer = features("value:String", "value_score:Double", "inception_internal_predicted:Boolean")
    type_system = (
        '<?xml version="1.0" encoding="UTF-8"?> <typeSystemDescription xmlns="http://uima.apache.org/resourceSpecifier">'
        " <types> <typeDescription> <name>uima.tcas.DocumentAnnotation</name> <description/>"
        f" <supertypeName>uima.tcas.Annotation</supertypeName> <features> {features('language:String')} </features>"
        f" </typeDescription> <typeDescription> <name>{LAYER}</name> <description/>"
        f" <supertypeName>uima.tcas.Annotation</supertypeName> <features> {of_layer} </features>"
        " </typeDescription> </types> </typeSystemDescription>"
    )
    units = len(text.encode("utf-16-le")) // 2
    xmi = (
        '<?xml version="1.0" encoding="UTF-8"?> <xmi:XMI xmlns:tcas="http:///uima/tcas.ecore"'
        ' xmlns:xmi="http://www.omg.org/XMI" xmlns:cas="http:///uima/cas.ecore"'
        ' xmlns:cassis="http:///cassis.ecore" xmi:version="2.0"> <cas:NULL xmi:id="0"/>'
        f' <tcas:DocumentAnnotation xmi:id="8" sofa="1" begin="0" end="{units}" language="x-unspecified"/>'
        ' <cas:Sofa xmi:id="1" sofaNum="1" sofaID="mySofa" mimeType="text/plain"'
        f' sofaString="{text}"/> <cas:View sofa="1" members="8"/> </xmi:XMI>'
    )
    metadata = {"layer": layer, "feature": feature, "projectId": 1337, "anchoringMode": "tokens"}
    return {
        "metadata": {**metadata, "crossSentence": False},
        "document": {"xmi": xmi, "documentId": 42, "userId": "testuser"},
        "typeSystem": type_system,
    }


def test_inception_gets_predictions(service: Service, predictor: NerPredictor) -> None:
    cassis = pytest.importorskip("cassis")
    for text in TEXTS:
        request = inception_request(text)
        status, body = ask(service, "/inception/predict", request)
        assert (status, list(body)) == (200, ["document"]), body
        cas = cassis.load_cas_from_xmi(body["document"], cassis.load_typesystem(request["typeSystem"]))
        view = cas.get_view("mySofa")
        assert view.sofa_string == text
        found = view.select(LAYER)
        assert all(one.inception_internal_predicted for one in found)
        (expected,) = predictor([text])
        assert [(one.value, one.begin, one.end) for one in found] == [
            (one.type, one.start, one.end) for one in expected
        ]
        scores = [one.confidence for one in expected]
        assert [one.value_score for one in found] == pytest.approx(scores, abs=1e-5)
        if "\U0001f600" in text:  # UIMA counts UTF-16 units
            assert f'begin="{expected[0].start + 1}"' in body["document"]


def test_faults_of_inception_requests(service: Service) -> None:
    pytest.importorskip("cassis")
    asked = inception_request(TEXTS[0])
    for request, message in [
        (inception_request(TEXTS[0], layer="custom.Layer"), "the CAS cannot be read: "),
        (inception_request(TEXTS[0], feature="kind"), f"{LAYER}: "),
        ({**asked, "typeSystem": "<no"}, "the CAS cannot be read: "),
        ({**asked, "document": {"xmi": "<!DOCTYPE a>"}}, "document.xmi: XML with a document type"),
        ({"metadata": asked["metadata"]}, "document: Field required; typeSystem: Field required"),
    ]:
        status, body = ask(service, "/inception/predict", request)
        assert (status, body["error"].startswith(message)) == (422, True), body


def test_inception_is_told_that_there_is_no_training(service: Service) -> None:
    request = inception_request(TEXTS[0])
    request["documents"] = [request.pop("document")]
    status, body = ask(service, "/inception/train", request)
    assert (status, "mark the recommender as not trainable" in body["error"]) == (501, True)
