"""MLServer, synchronous, with a runtime of a few lines that knows the model."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from protocol import end, free_port, start, wait_for
from singles_protocol import Model, serve_at


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = Model(os.environ["MODEL"])
        return True

    async def predict(self, asked: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(asked.inputs[0])
        predicted = NumpyCodec.encode_output("predict", np.asarray(self.model.predict_all(rows)))
        return InferenceResponse(model_name=self.name, outputs=[predicted])


def configure(folder: Path, port: int) -> None:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        # In the web process: passing requests on to another costs more than this model does.
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "linear", "implementation": "singles_mlserver.Runtime"}
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    port = free_port()
    # The folder that it was started in is its own, and goes away with it.
    configure(Path.cwd(), port)
    server = start("mlserver", "start", str(Path.cwd()))
    wait_for(f"http://127.0.0.1:{port}/v2/models/linear/ready")
    serve_at(f"http://127.0.0.1:{port}")
    end(server)
