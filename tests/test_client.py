"""Thousands of calls against a real server on loopback that fails on a schedule: nothing is lost."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest
from conftest import ROOT

from longcot import client
from longcot.client import Answer, Call, Endpoint, Meter, ask_all
from longcot.errors import ClientError

SECRET = "sk-not-for-anybodys-eyes"


def good(key: str, **message) -> dict:
    """The body a well-behaved server sends."""
    reply = {"role": "assistant", "content": f"answer to {key}", **message}
    return {
        "choices": [{"index": 0, "message": reply, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18},
    }


class ChatServer:
    """`behave(body, attempt)` gives (status, body, headers), or the name of a way to fail.

    The attempt is counted by question (the last message's text), from 0.
    """

    def __init__(self, behave=lambda body, attempt: (200, good(asked(body)), {})) -> None:
        self.behave = behave
        self.port = 0
        self.attempts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.peak = 0
        self.gate: int | None = None  # answers wait until so many requests are in flight
        self.opened = asyncio.Event()
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=[self.run()])

    def __enter__(self) -> "ChatServer":
        self.thread.start()
        assert self.ready.wait(30)
        return self

    def __exit__(self, *_) -> None:
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def run(self) -> None:
        self.stopped = asyncio.Event()
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stopped.wait()
        server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0.01)  # for the connections to close

    async def serve(self, reader, writer) -> None:
        try:
            while await self.answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    async def answer_one(self, reader, writer) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        assert head[0] == "POST /v1/chat/completions HTTP/1.1"
        key = asked(body)
        self.bodies.append(body)
        self.headers.append(headers)
        attempt = self.attempts[key]
        self.attempts[key] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            if self.gate:
                if self.in_flight >= self.gate:
                    self.opened.set()
                await self.opened.wait()
            done = self.behave(body, attempt)
            if done == "slow":
                await asyncio.sleep(60)
        finally:
            self.in_flight -= 1
        if done == "drop":
            return False
        if done == "half":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
            await writer.drain()
            return False
        status, content, extra = done
        self.answered[key] += content == good(key)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}"]
        lines += [f"{k}: {v}" for k, v in {"Content-Type": "application/json", **extra}.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + raw)
        await writer.drain()
        return True


def asked(body: dict) -> str:
    return body["messages"][-1]["content"]


def calls(count: int):
    return (Call(f"k{i}", ({"role": "user", "content": f"k{i}"},), {}) for i in range(count))


def endpoint(*urls: str, **changes) -> Endpoint:
    usual = {"concurrency": 8, "timeout": 20.0, "max_retries": 4, "api_key_env": None}
    return Endpoint(urls, "tiny", **{**usual, **changes})


def ask(count: int, *urls: str, **changes) -> tuple[dict[str, Answer], Meter]:
    """All answers by key; an answer given twice fails at once."""
    found: dict[str, Answer] = {}

    def keep(answer: Answer) -> None:
        assert answer.key not in found
        found[answer.key] = answer

    meter = ask_all(calls(count), endpoint(*urls, **changes), keep)
    assert meter.calls == len(found) == count
    assert meter.retries == sum(answer.retries for answer in found.values())
    return found, meter


def refusing_url() -> str:
    """A port of ours that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.002)
    monkeypatch.setattr(client, "REST", 0.02)


# ---- one call


def test_a_call_is_sent_as_it_is_and_its_answer_comes_back_whole():
    with ChatServer(lambda body, attempt: (200, good("x", reasoning_content="hm"), {})) as server:
        call = Call("id-1", ({"role": "system", "content": "s"}, {"role": "user", "content": "q"}),
                    {"temperature": 0.7, "max_tokens": 9, "seed": 3, "top_k": 5})  # fmt: skip
        found = []
        meter = ask_all([call], endpoint(server.url), found.append)
    assert server.bodies == [{"model": "tiny", "messages": list(call.messages), **call.sampling}]
    (answer,) = found
    assert answer.seconds > 0
    assert answer == Answer("id-1", "answer to x", "hm", "stop", 7, 11, 0, answer.seconds,
                            server.url, None)  # fmt: skip
    assert (meter.calls, meter.failed, meter.prompt_tokens, meter.tokens) == (1, 0, 7, 11)


@pytest.mark.parametrize("reason", ["length", "content_filter", None])
def test_the_finish_reason_is_passed_through_and_left_to_the_caller(reason):
    def behave(body, attempt):
        whole = good(asked(body))
        whole["choices"][0]["finish_reason"] = reason
        return 200, whole, {}

    with ChatServer(behave) as server:
        found, meter = ask(3, server.url)
    assert {answer.finish_reason for answer in found.values()} == {reason}
    assert all(answer.text and not answer.error for answer in found.values())
    assert meter.retries == 0


def test_the_key_is_read_from_the_environment_and_no_other_key_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of another service")
    monkeypatch.setenv("TEACHER_KEY", f" {SECRET}\n")
    with ChatServer() as server:
        ask(1, server.url, api_key_env="TEACHER_KEY")
        ask(1, server.url)
    assert [h["authorization"] for h in server.headers] == [f"Bearer {SECRET}", "Bearer none"]


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "k\u00e9y"])
def test_without_a_usable_key_nothing_is_sent(monkeypatch, value):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEACHER_KEY", value)
    read = []
    with ChatServer() as server, pytest.raises(ClientError, match="TEACHER_KEY") as caught:
        ask_all(map(read.append, calls(3)), endpoint(server.url, api_key_env="TEACHER_KEY"), print)
    assert not server.bodies and not read
    assert not (value or "").strip() or value not in str(caught.value)


@pytest.mark.parametrize("changes", [{"concurrency": 0}, {"urls": ()}, {"urls": ("ftp://a",)}])
def test_an_endpoint_that_cannot_be_asked_is_refused_before_a_call_is_read(changes):
    urls = changes.pop("urls", ("http://127.0.0.1:9",))
    read = []
    with pytest.raises(ClientError):
        ask_all(map(read.append, calls(3)), endpoint(*urls, **changes), print)
    assert not read


# ---- faults

HTML = (200, b"<html>502 Bad Gateway</html>", {"Content-Type": "text/html"})
FAULTS = {
    "500": (500, {"error": {"message": "oops"}}, {}),
    "503": (503, b"", {"Content-Type": "text/plain"}),
    "408": (408, {}, {}),
    "409": (409, {"detail": "busy"}, {}),
    "429": (429, {"error": {"message": "slower"}}, {"Retry-After": "0"}),
    "429 date": (429, {}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "429 rubbish": (429, {}, {"Retry-After": "soon"}),
    "drop": "drop",
    "half": "half",
    "slow": "slow",
    "html": HTML,
    "html said to be json": (200, HTML[1], {}),
    "empty": (200, b"", {}),
    "no choices": (200, {"choices": []}, {}),
    "error in 200": (200, {"error": {"message": "provider down"}}, {}),
    "null": (200, good("x", content=None), {}),
    "number": (200, good("x", content=7), {}),
    "list": (200, [1, 2], {}),
    "half a character": (200, good("x", content="\ud800"), {}),
    "deep": (200, b"[" * 100_000, {}),
    "broken off": (200, {"choices": [{"message": {"content": "a"}, "finish_reason": "error"}]}, {}),
}


@pytest.mark.slow
def test_one_in_a_hundred_fails_and_nothing_is_lost_or_doubled():
    count = 100 * len(FAULTS)
    planned = {f"k{100 * i + 37}": fault for i, fault in enumerate(FAULTS.values())}

    def behave(body, attempt):
        key = asked(body)
        return planned[key] if key in planned and attempt == 0 else (200, good(key), {})

    with ChatServer(behave) as server:
        found, meter = ask(count, server.url, concurrency=64, timeout=4.0)
    assert meter.failed == 0 and meter.retries == len(FAULTS)
    assert {key: answer.retries for key, answer in found.items() if answer.retries} == (
        dict.fromkeys(planned, 1)
    )
    assert all(answer.text == f"answer to {key}" for key, answer in found.items())
    assert server.answered == Counter(dict.fromkeys(found, 1))
    assert (meter.prompt_tokens, meter.tokens) == (7 * count, 11 * count)


@pytest.mark.parametrize("name", FAULTS)
def test_what_always_fails_becomes_an_error_and_the_others_are_fine(name):
    def behave(body, attempt):
        return FAULTS[name] if asked(body) == "k5" else (200, good(asked(body)), {})

    with ChatServer(behave) as server:
        limit = 1.0 if name == "slow" else 20.0
        found, meter = ask(12, server.url, max_retries=2, timeout=limit)
    bad = found.pop("k5")
    assert bad.error and bad.text == "" and bad.retries == 2 and bad.tokens == 0
    assert server.attempts["k5"] == 3
    assert name[:3] in bad.error or not name[:3].isdigit()
    assert meter.failed == 1 and meter.retries == 2
    assert all(answer.error is None and answer.retries == 0 for answer in found.values())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_call_the_server_cannot_take_is_not_asked_again(status):
    def behave(body, attempt):
        if asked(body) == "k1":
            return status, {"error": {"message": "context is\n too long"}}, {}
        return 200, good(asked(body)), {}

    with ChatServer(behave) as server:
        found, meter = ask(4, server.url)
    assert found["k1"].error == f"HTTP {status}: context is too long"
    assert server.attempts["k1"] == 1
    assert (meter.failed, meter.retries) == (1, 0)


def test_messages_that_cannot_be_sent_are_an_error_of_that_call():
    broken = Call("bad", ({"role": "user", "content": "\ud800"},), {})
    found = {}
    with ChatServer() as server:
        ask_all([broken, *calls(2)], endpoint(server.url), lambda a: found.update({a.key: a}))
    assert "half a character" in found["bad"].error
    assert found["k0"].error is None and found["k1"].error is None


def test_no_retries_means_one_try():
    with ChatServer(lambda body, attempt: FAULTS["500"]) as server:
        found, meter = ask(5, server.url, max_retries=0)
    assert set(server.attempts.values()) == {1}
    assert meter.failed == 5 and {a.error for a in found.values()} == {"HTTP 500: oops"}


def test_waits_double_and_are_spread_and_retry_after_is_obeyed(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 1.0)
    for retries, longest in [(0, 1.0), (1, 2.0), (3, 8.0), (9, 60.0), (5000, 60.0)]:
        waits = {client._wait(retries, None) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert {client._wait(7, 0.0) for _ in range(9)} == {0.0}
    assert all(20 <= client._wait(0, 20.0) <= 25 for _ in range(50))
    assert client._wait(0, 1e9) <= 1.25 * client.LONGEST_ASKED


def test_a_server_that_says_when_is_asked_again_then(monkeypatch):
    slept = []
    real = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await real(0)

    def behave(body, attempt):
        return (429, {}, {"Retry-After": "30"}) if attempt == 0 else (200, good(asked(body)), {})

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    with ChatServer(behave) as server:
        ask(1, server.url)
    assert [seconds for seconds in slept if seconds >= 30]


# ---- what stops the run


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_every_call_would_meet_stops_the_run_with_one_clear_error(monkeypatch, status):
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    said = {"error": {"message": f"no: {SECRET}"}}
    kept = []
    server = ChatServer(lambda body, attempt: (status, said, {}))
    with server, pytest.raises(ClientError) as caught:
        ask_all(calls(10_000), endpoint(server.url, api_key_env="TEACHER_KEY"), kept.append)
    message = str(caught.value)
    assert server.url in message and "tiny" in message and f"HTTP {status}: no: ***" in message
    assert SECRET not in message
    assert not kept and max(server.attempts.values()) == 1 and len(server.bodies) <= 8


def test_an_empty_account_is_not_a_rate_limit():
    spent = {"error": {"message": "You exceeded", "code": "insufficient_quota"}}
    server = ChatServer(lambda body, attempt: (429, spent, {}))
    with server, pytest.raises(ClientError, match="credit"):
        ask_all(calls(9), endpoint(server.url), print)
    assert max(server.attempts.values()) == 1


def test_when_every_url_refuses_the_run_stops():
    urls = refusing_url(), refusing_url()
    kept = []
    with pytest.raises(ClientError, match="no connection") as caught:
        ask_all(calls(10_000), endpoint(*urls, max_retries=50), kept.append)
    assert all(url in str(caught.value) for url in urls) and not kept


def test_a_url_that_refuses_is_set_aside_and_costs_no_retry():
    refused = refusing_url()
    with ChatServer() as server:
        found, meter = ask(60, refused, server.url, max_retries=0)
    assert {answer.url for answer in found.values()} == {server.url}
    assert (meter.failed, meter.retries) == (0, 0)


def test_a_server_that_starts_late_is_waited_for(monkeypatch):
    server, set_aside = ChatServer(), client._set_aside
    server.port = int(refusing_url().split(":")[2].removesuffix("/v1"))

    def start_then_set_aside(*arguments):
        if not server.ready.is_set():
            server.__enter__()
        set_aside(*arguments)

    monkeypatch.setattr(client, "_set_aside", start_then_set_aside)
    try:
        found, meter = ask(20, server.url, max_retries=0)
    finally:
        server.__exit__()
    assert server.ready.is_set() and (meter.failed, meter.retries) == (0, 0)


def test_a_url_that_goes_away_in_the_middle_loses_nothing():
    def behave(body, attempt):
        if dying.answered.total() >= 20:
            dying.stopped.set()
            return "drop"
        return 200, good(asked(body)), {}

    with ChatServer(behave) as dying, ChatServer() as other:
        found, meter = ask(300, dying.url, other.url)
    assert meter.failed == 0 and 20 <= dying.answered.total() < 60
    assert (dying.answered + other.answered).keys() == found.keys()


def test_calls_go_to_the_url_with_the_fewest_in_flight_and_retries_to_another():
    with ChatServer() as one, ChatServer(lambda body, attempt: FAULTS["503"]) as ill:
        found, meter = ask(200, ill.url, one.url, max_retries=1)
    assert meter.failed == 0 and {answer.url for answer in found.values()} == {one.url}
    assert max(ill.attempts.values()) == 1
    one, two = ChatServer(), ChatServer()
    one.gate = two.gate = 10
    with one, two:
        ask(20, one.url, two.url, concurrency=20)
    assert (one.peak, two.peak) == (10, 10)


# ---- concurrency, laziness, bugs, Ctrl-C


def test_256_requests_are_in_flight_at_once_and_never_more():
    server = ChatServer()
    server.gate = 256
    with server:
        _, meter = ask(700, server.url, concurrency=256, timeout=60.0)
    assert server.peak == 256
    assert meter.failed == 0


def test_calls_are_read_only_as_fast_as_they_finish():
    ahead = []
    finished = 0

    def endless():
        for number, call in enumerate(calls(400)):
            ahead.append(number - finished)
            yield call

    def count(_):
        nonlocal finished
        finished += 1

    with ChatServer() as server:
        ask_all(endless(), endpoint(server.url, concurrency=16), count)
    assert len(ahead) == finished == 400 and max(ahead) < 16


@pytest.mark.parametrize("bug", [ZeroDivisionError, KeyError, ConnectionError, TimeoutError])
def test_a_bug_in_on_answer_is_raised_at_once_and_cancels_the_rest(bug):
    kept = []

    def broken(answer):
        kept.append(answer)
        if len(kept) == 5:
            raise bug("mine")

    with ChatServer() as server, pytest.raises(bug, match="mine"):
        ask_all(calls(10_000), endpoint(server.url), broken)
    assert len(kept) < 5 + 8 and len(server.bodies) < 50


def test_a_broken_source_of_calls_is_raised():
    def torn():
        yield from calls(20)
        raise OSError("disk gone")

    with ChatServer() as server, pytest.raises(OSError, match="disk gone"):
        ask_all(torn(), endpoint(server.url), lambda answer: None)


def test_no_calls_are_no_trouble():
    with ChatServer() as server:
        assert ask_all([], endpoint(server.url), print).calls == 0


INTERRUPTED = """
import sys
from longcot.client import Call, Endpoint, ask_all
calls = (Call(str(i), ({"role": "user", "content": str(i)},), {}) for i in range(10**6))
kept = open(sys.argv[2], "a")
def keep(answer):
    kept.write(answer.text + "\\n"); kept.flush()
    print("answered", flush=True)
ask_all(calls, Endpoint((sys.argv[1],), "tiny", None, 32, 20.0, 3), keep)
"""


def test_ctrl_c_ends_it_with_one_plain_interrupt_and_whole_lines(tmp_path):
    path = tmp_path / "answers.txt"
    with ChatServer() as server:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, server.url, str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert process.stdout.readline() == "answered\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") <= 2 and err.rstrip().endswith("KeyboardInterrupt")
    assert "never retrieved" not in err and "pending" not in err
    assert all(line.startswith("answer to ") for line in path.read_text().splitlines())


# ---- the meter


def test_the_meter_counts_tokens_and_money():
    meter = Meter(dollars_in=0.5, dollars_out=2.0)
    usual = {"text": "", "reasoning": None, "finish_reason": None, "seconds": 1.0, "url": "u"}
    meter.add(
        Answer(key="a", prompt_tokens=400_000, tokens=1_000_000, retries=2, error=None, **usual)
    )
    meter.add(Answer(key="b", prompt_tokens=0, tokens=0, retries=5, error="HTTP 500", **usual))
    assert meter.dollars() == pytest.approx(0.2 + 2.0)
    meter.seconds = 10.0
    assert meter.line() == "2 calls, 1 failed, 7 retries, 100,000 tokens/s, $2.20"
    assert Meter().dollars() is None and Meter(dollars_in=1.0).dollars() is None
    assert Meter().line() == "0 calls, 0 failed, 0 retries, 0 tokens/s"


def test_the_bar_shows_the_meter_and_never_the_key(monkeypatch, capsys):
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    with ChatServer(lambda body, attempt: (400, {"detail": SECRET}, {})) as server:
        prices = {"dollars_in": 1.0, "dollars_out": 1.0}
        found, _ = ask(3, server.url, api_key_env="TEACHER_KEY", **prices)
    assert {answer.error for answer in found.values()} == {"HTTP 400: ***"}
    shown = capsys.readouterr().err
    assert "3 calls, 3 failed, 0 retries" in shown and "$0.00" in shown
    assert SECRET not in shown


def test_proxies_are_not_used_for_this_machine(monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with ChatServer() as server:
        assert ask(2, server.url)[1].failed == 0
