import base64
import json

import pytest

from ops.bench.ports import free_ports
from ops.problem import Problem
from ops.question import Question, ask, data_url, document_url
from serve_app.gateway.fields import Dialect
from serve_app.gateway.validation import parse_chat
from tests.ops.fakes import ANSWER, FakeGateway, chunk

PNG = b"\x89PNG\r\n\x1a\n rest"


async def answer_of(gateway, question=None, pieces=None):
    with gateway.serve() as root:
        shown = [] if pieces is None else pieces
        return await ask(question or Question("Hi", model="nano"), root, "sk-1", shown.append)


async def test_the_answer_streams_with_exact_counts_and_cost():
    pieces: list[str] = []
    answer = await answer_of(FakeGateway(events=ANSWER), pieces=pieces)
    assert pieces == ["Three ", "shapes"]
    assert answer.text == "Three shapes"
    assert (answer.text_tokens, answer.image_tokens, answer.output_tokens) == (16, 204, 3)
    assert 0 < answer.first_token_s <= answer.seconds
    first, second = answer.accounts().splitlines()
    assert first.startswith("16 text + 204 image tokens in, 3 out (stop); first token after 0.")
    assert second == "cost $0.000458 (input $0.00044, output $0.000018)"
    assert json.loads(answer.as_json())["cost_total"] == "0.000458"


async def test_the_body_holds_pictures_before_the_text_and_only_what_was_said(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(PNG)
    gateway = FakeGateway(events=ANSWER)
    await answer_of(gateway, Question("What?", (picture, picture), "nano", temperature=0.0))
    (body,) = gateway.bodies
    image = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()},
    }
    assert body == {
        "model": "nano",
        "messages": [
            {"role": "user", "content": [image, image, {"type": "text", "text": "What?"}]}
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
    }
    assert gateway.keys == ["Bearer sk-1"]


async def test_documents_stand_behind_pictures_with_what_is_wanted_of_them(tmp_path):
    picture, document = tmp_path / "a.gif", tmp_path / "a.pdf"
    picture.write_bytes(b"GIF89a rest")
    document.write_bytes(b"%PDF-1.7 rest")
    gateway = FakeGateway(events=ANSWER)
    question = Question(
        "What?",
        (picture,),
        "nano",
        documents=(document,),
        pages="1-3,7",
        frames=4,
        detail="low",
    )
    await answer_of(gateway, question)
    image, pages, text = gateway.bodies[0]["messages"][0]["content"]
    assert image["image_url"] | {"url": ""} == {
        "url": "",
        "frames": {"count": 4},
        "detail": "low",
    }
    assert pages == {
        "type": "document_url",
        "document_url": "data:application/pdf;base64,"
        + base64.b64encode(b"%PDF-1.7 rest").decode(),
        "pages": "1-3,7",
        "detail": "low",
    }
    assert text == {"type": "text", "text": "What?"}
    # As the API takes it.
    parse_chat(json.dumps(gateway.bodies[0]).encode(), Dialect.OPENAI)


def test_other_documents_are_refused(tmp_path):
    file = tmp_path / "file.pdf"
    file.write_bytes(PNG)
    with pytest.raises(Problem, match=r"file\.pdf is not a PDF document"):
        document_url(file)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"\xff\xd8\xff\xe0 rest", "image/jpeg"),
        (PNG, "image/png"),
        (b"GIF89a rest", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_a_picture_is_known_by_its_content(tmp_path, content, media_type):
    file = tmp_path / "picture.dat"
    file.write_bytes(content)
    assert data_url(file).startswith(f"data:{media_type};base64,")


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7", b"RIFF\0\0\0\0WAVEfmt "])
def test_other_files_are_refused(tmp_path, content):
    file = tmp_path / "file.png"
    file.write_bytes(content)
    with pytest.raises(Problem, match=r"file\.png is not a JPEG, PNG, WebP or GIF"):
        data_url(file)


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(Problem, match=r"nowhere\.png cannot be read: No such file"):
        data_url(tmp_path / "nowhere.png")


async def test_a_refusal_is_the_apis_own_message():
    refusal = {"error": {"message": "max_tokens is 0", "type": "invalid", "code": "invalid_value"}}
    with pytest.raises(Problem, match=r"^max_tokens is 0 \(invalid_value, HTTP 400\)$"):
        await answer_of(FakeGateway(status=400, refusal=refusal))


async def test_a_refusal_by_something_else_is_told_all_the_same():
    with pytest.raises(Problem, match=r'^HTTP 502: "bad gateway"$'):
        await answer_of(FakeGateway(status=502, refusal="bad gateway"))


async def test_an_error_in_the_middle_is_told():
    broken = chunk(choices=[], error={"message": "the group failed"})
    with pytest.raises(Problem, match="the answer broke off: the group failed"):
        await answer_of(FakeGateway(events=(chunk("Thr"), broken)))


@pytest.mark.parametrize("end", [1, 3])
async def test_a_stream_that_ends_early_is_no_answer(end):
    with pytest.raises(Problem, match="broke off before its end"):
        await answer_of(FakeGateway(events=ANSWER[:end]))


async def test_nobody_there_says_what_to_do():
    with pytest.raises(Problem, match="start the system with `pixtral up`"):
        await ask(Question("Hi"), f"http://127.0.0.1:{free_ports(4)[0]}/v1", "", print)


async def test_an_event_longer_than_any_buffer_arrives_whole():
    long = "x" * 300_000
    answer = await answer_of(FakeGateway(events=(chunk(long), *ANSWER)))
    assert answer.text == long + "Three shapes"
