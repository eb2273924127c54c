"""A service for a Linux board. Run: board-service model.tflite 8080; then: curl -d '[[0.1, 0.2]]' localhost:8080"""

import http.server
import json
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(path=None, port=None):
    interpreter = Interpreter(model_path=path or sys.argv[1])
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                x = np.array(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), np.float32)
                interpreter.set_tensor(given["index"], codes(x.reshape(given["shape"]), given))
                interpreter.invoke()
                status, said = 200, values(interpreter.get_tensor(made["index"])[0], made).tolist()
            except (TypeError, ValueError) as error:
                status, said = 400, {"error": str(error), "expected": f"numbers of shape {given['shape'][1:].tolist()}"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

    http.server.HTTPServer(("127.0.0.1", int(port or sys.argv[2])), Handler).serve_forever()


def codes(x, tensor):  # what the file takes: integers where it has a scale
    scale, zero = tensor["quantization"]
    kind = tensor["dtype"]
    return np.clip(np.rint(x / scale) + zero, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind) if scale else x


def values(codes, tensor):
    scale, zero = tensor["quantization"]
    return (codes.astype(np.float32) - zero) * scale if scale else codes


if __name__ == "__main__":
    main()
