"""A teacher on loopback for the tests: knows every sum, and keeps a log of what it was asked."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from longcot import chat


def question_row(number: int) -> dict:
    """A question about apples; 3 in 60 carry a wrong gold so that the teacher's answer is wrong."""
    a, b = number * 37 % 101, number * 53 % 89
    problem = (
        f"Basket {number} holds {a} apples. A farmer from village {number * 7} adds {b} apples "
        f"on day {number % 28 + 1}. How many apples are in the basket now?"
    )
    return {"problem": problem, "answer": str(a + b + (number % 20 == 7))}


def reply_to(problem: str) -> str:
    words = problem.split()
    a, b = int(words[3]), int(words[words.index("adds") + 1])
    return (
        f"<|begin_of_thought|>\n\nWe add {a} and {b}.\n\nWait, check: {b} + {a} = {a + b}.\n\n"
        f"<|end_of_thought|>\n\n<|begin_of_solution|>\n\nThere are \\boxed{{{a + b}}} apples.\n\n"
        "<|end_of_solution|>"
    )


class Teacher:
    """`with Teacher() as teacher:` serves teacher.url; `faults(problem, times asked)` may spoil a reply:
    "500", "rubbish", "length", "slow", "plain" (no tags) or None."""

    def __init__(self, faults=lambda problem, times: None, delay: float = 0.0) -> None:
        self.faults, self.delay = faults, delay
        self.asked: Counter = Counter()  # by problem
        self.answered: Counter = Counter()
        self.bodies: list[dict] = []
        self.lock = threading.Lock()
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format, *arguments):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                teacher.answer(self, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, body: dict) -> None:
        problem = body["messages"][-1]["content"]
        with self.lock:
            self.asked[problem] += 1
            self.bodies.append(body)
            fault = self.faults(problem, self.asked[problem])
        time.sleep(2.0 if fault == "slow" else self.delay)
        text = "rubbish" if fault == "rubbish" else self.completion(problem, fault, body["model"])
        data = text.encode()
        try:
            handler.send_response(500 if fault == "500" else 200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:  # the client was killed
            return
        with self.lock:
            self.answered[problem] += 1

    def completion(self, problem: str, fault: str | None, model: str) -> str:
        message = {"role": "assistant", "content": "The sum." if fault == "plain" else None}
        if model == "judge":  # difficulty: the number of the basket, modulo 10, and 0 is no grade
            message["content"] = (
                f"Easy enough. [[{int(re.findall('Basket ([0-9]+)', problem)[-1]) % 10}]]"
            )
        elif model == "rewriter":
            thought, _, solution = problem.rpartition("\n\n")
            message["content"] = chat.lay_out(thought, solution, "thought_solution")
        elif model == "thinker":  # the thought in a field of its own
            parts = chat.split(reply_to(problem[problem.index("Basket") :]))
            message = {
                "content": parts.solution.strip(),
                "reasoning_content": parts.thought.strip(),
            }
            message |= {"role": "assistant"}
        elif message["content"] is None:
            message["content"] = reply_to(problem)
        reason = "length" if fault == "length" else "stop"
        return json.dumps(
            {
                "id": "x", "object": "chat.completion", "created": 0, "model": "teacher",
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": {"prompt_tokens": 30, "completion_tokens": 60, "total_tokens": 90},
            }
        )  # fmt: skip
