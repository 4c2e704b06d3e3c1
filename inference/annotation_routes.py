"""Routes for annotation tools: Label Studio's machine-learning backend, INCEpTION's external recommender.

Label Studio's are documented in https://github.com/HumanSignal/label-studio-ml-backend, INCEpTION's in the chapter on
external recommenders of its developer guide.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from inference.predictor import FoundEntity
from inference.request_bodies import validated

Respond = Callable[[Any], Awaitable[dict[str, Any]]]
_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)  # these formats have none; entities can expand
_NO_TRAINING = "this service does not train: correct the annotations, export them and run the training script"


class LabelStudioTask(BaseModel):
    data: dict[str, Any]


class LabelStudioTasks(BaseModel):
    """Tasks to predict, with the labelling interface of their project."""

    tasks: list[LabelStudioTask]
    label_config: str


class LabelStudioEvent(BaseModel):
    action: str


class CasMetadata(BaseModel):
    """What INCEpTION wants predicted: a feature of a layer."""

    layer: str
    feature: str


class CasDocument(BaseModel):
    xmi: str


class CasRequest(BaseModel):
    """A document as a UIMA CAS, with its type system."""

    metadata: CasMetadata
    document: CasDocument
    typeSystem: str  # noqa: N815


@dataclass(frozen=True)
class AnnotationTools:
    """Answers annotation tools.

    Args:
        answer: reads the body of a request, of at most so many bytes, and responds to its content within the limits.
        find: finds the entities of texts; refuses too many.
        max_bytes: maximum size of a body.
        model: folder of the model, whose name is its version; may be empty.
    """

    answer: Callable[[Request, int, Respond], Awaitable[dict[str, Any]]]
    find: Callable[[Sequence[str]], Awaitable[list[list[FoundEntity]]]]
    max_bytes: int
    model: str

    @property
    def version(self) -> str:
        return Path(self.model).name or "model"

    def router(self, errors: dict[int | str, dict[str, Any]]) -> APIRouter:
        """The routes.

        Args:
            errors: descriptions of the errors, by status.
        """
        router = APIRouter()
        untrained = {**errors, 501: {**errors[500], "description": "Not supported"}}

        @router.get("/label_studio/health", responses={400: errors[400]})
        async def label_studio_health() -> dict[str, str]:
            return {"status": "UP", "model_class": "NerPredictor"}

        @router.post("/label_studio/setup", responses=errors)
        async def label_studio_setup(request: Request) -> dict[str, Any]:
            return await self.answer(request, self.max_bytes, self._set_up)

        @router.post("/label_studio/predict", responses=errors)
        async def label_studio_predict(request: Request) -> dict[str, Any]:
            return await self.answer(request, self.max_bytes, self._predict_tasks)

        @router.post("/label_studio/webhook", responses=untrained)
        async def label_studio_webhook(request: Request) -> dict[str, Any]:
            return await self.answer(request, self.max_bytes, _notice)

        @router.post("/inception/predict", responses=untrained)
        async def inception_predict(request: Request) -> dict[str, Any]:
            return await self.answer(request, self.max_bytes, self._predict_cas)

        @router.post("/inception/train", status_code=501, responses={400: errors[400], 501: untrained[501]})
        async def inception_train() -> dict[str, Any]:
            raise HTTPException(501, f"{_NO_TRAINING}; mark the recommender as not trainable")

        return router

    async def _set_up(self, content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise HTTPException(422, "expected an object with project and schema")
        return {"model_version": self.version}

    async def _predict_tasks(self, content: Any) -> dict[str, Any]:
        asked = validated(LabelStudioTasks, content)
        interface = LabelingInterface.parse(asked.label_config)
        texts = [task.data.get(interface.text_key) for task in asked.tasks]
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise HTTPException(422, f"tasks.{number}.data.{interface.text_key}: expected a text")
        found = await self.find([str(text) for text in texts])
        results = [interface.prediction(entities) | {"model_version": self.version} for entities in found]
        return {"results": results, "model_version": self.version}

    async def _predict_cas(self, content: Any) -> dict[str, Any]:
        asked = validated(CasRequest, content)
        cas = await asyncio.to_thread(_load_cas, asked)
        entities = (await self.find([cas.sofa_string or ""]))[0]
        return {"document": await asyncio.to_thread(_with_predictions, cas, asked.metadata, entities)}


async def _notice(content: Any) -> dict[str, Any]:
    """Answer an event of a project; nothing follows from any, and a demand to train is refused."""
    action = validated(LabelStudioEvent, content).action
    if action == "START_TRAINING":
        raise HTTPException(501, _NO_TRAINING)
    return {"status": "ok", "result": f"{action} has no effect: {_NO_TRAINING}"}


@dataclass(frozen=True)
class LabelingInterface:
    """The part of a labelling interface of Label Studio that marks entities in a text.

    Args:
        control, text: names of the ``Labels`` and of the ``Text`` that they mark.
        text_key: key of the text in the data of a task.
        labels: label of each entity type that has one; ``predicted_values`` of a label names further types.
    """

    control: str
    text: str
    text_key: str
    labels: dict[str, str]

    @classmethod
    def parse(cls, config: str) -> "LabelingInterface":
        """Parse the XML of a project.

        Raises:
            HTTPException: 422 if nothing in it marks entities in a text.
        """
        try:
            root = ElementTree.fromstring(_declared_nothing(config, "label_config"))
        except (ElementTree.ParseError, ValueError) as error:
            raise HTTPException(422, f"label_config: not XML: {error}") from None
        texts = {one.get("name"): one.get("value", "") for one in root.iter("Text")}
        for control in root.iter("Labels"):
            name, text = control.get("name", ""), control.get("toName", "")
            if text in texts and texts[text].startswith("$"):
                labels: dict[str, str] = {}
                for label in control.iter("Label"):
                    value = label.get("value") or ""
                    others = (label.get("predicted_values") or "").split(",")
                    labels |= {kind.strip(): value for kind in (*others, value) if kind.strip()}
                return cls(name, text, texts[text][1:], labels)
        raise HTTPException(
            422, 'label_config: expected <Labels toName="..."> for a <Text value="$..."> with this name'
        )

    def prediction(self, entities: Sequence[FoundEntity]) -> dict[str, Any]:
        """Regions of the entities whose types have a label, and the lowest confidence among them."""
        labelled = [one for one in entities if one.type in self.labels]
        regions = [
            {
                "id": f"entity-{number}",
                "from_name": self.control,
                "to_name": self.text,
                "type": "labels",
                "value": {"start": one.start, "end": one.end, "text": one.surface, "labels": [self.labels[one.type]]},
                "score": round(one.confidence, 6),
            }
            for number, one in enumerate(labelled)
        ]
        return {"result": regions, "score": round(min((one.confidence for one in labelled), default=1.0), 6)}


def _declared_nothing(xml: str, name: str) -> str:
    if _DECLARATION.search(xml):
        raise HTTPException(422, f"{name}: XML with a document type or entities is refused")
    return xml


def _load_cas(asked: CasRequest) -> Any:
    """The view with the text of a document.

    Raises:
        HTTPException: 422 if it cannot be read, 501 if the library is missing.
    """
    try:
        import cassis
    except ImportError:
        raise HTTPException(501, "INCEpTION needs dkpro-cassis: pip install -r requirements-serve.txt") from None
    _declared_nothing(asked.typeSystem, "typeSystem")
    _declared_nothing(asked.document.xmi, "document.xmi")
    try:
        cas = cassis.load_cas_from_xmi(asked.document.xmi, cassis.load_typesystem(asked.typeSystem))
        cas.typesystem.get_type(asked.metadata.layer)
    except Exception as error:  # of many kinds, none of them documented
        raise HTTPException(422, f"the CAS cannot be read: {error}") from None
    return next((cas.get_view(sofa.sofaID) for sofa in cas.sofas if sofa.sofaString is not None), cas)


def _with_predictions(cas: Any, metadata: CasMetadata, entities: Sequence[FoundEntity]) -> str:
    """Add entities to a CAS as INCEpTION expects suggestions, and write it."""
    layer = cas.typesystem.get_type(metadata.layer)
    score = f"{metadata.feature}_score"
    has_score = layer.get_feature(score) is not None
    for one in entities:
        known = {metadata.feature: one.type, "inception_internal_predicted": True}
        if has_score:
            known[score] = round(one.confidence, 6)
        try:
            cas.add(layer(begin=one.start, end=one.end, **known))
        except TypeError as error:  # a feature that the layer lacks
            raise HTTPException(422, f"{metadata.layer}: {error}") from None
    return str(cas.to_xmi())
