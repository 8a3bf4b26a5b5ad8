#!/usr/bin/env python3
"""Writes tests/goldens/tensor/*.onnx, networks of one or two operations. Needs onnx 1.23 (opset 17, IR 8)."""
import pathlib

import onnx
from onnx import TensorProto as T
from onnx import helper as h

OUT = pathlib.Path(__file__).parent / "tensor"


def save(name, nodes, inputs, outputs, constants=()):
    graph = h.make_graph(nodes, name, [h.make_tensor_value_info(*i) for i in inputs],
                         [h.make_tensor_value_info(*o) for o in outputs], list(constants))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, OUT / f"{name}.onnx")


OUT.mkdir(exist_ok=True)
save("two_inputs",
     [h.make_node("Mul", ["values", "three"], ["tripled"]), h.make_node("Add", ["ids", "ids"], ["doubled"])],
     [("values", T.FLOAT, ["n", 3]), ("ids", T.INT64, ["n", 2])],
     [("tripled", T.FLOAT, ["n", 3]), ("doubled", T.INT64, ["n", 2])],
     [h.make_tensor("three", T.FLOAT, [1], [3.0])])
save("fixed_batch", [h.make_node("Relu", ["x"], ["y"])], [("x", T.FLOAT, [1, 4])], [("y", T.FLOAT, [1, 4])])
save("free_size",
     [h.make_node("Cast", ["photo"], ["real"], to=T.FLOAT),
      h.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0)],
     [("photo", T.UINT8, ["n", "h", "w", 3])], [("mean", T.FLOAT, ["n", 3])])
save("strings", [h.make_node("Identity", ["text"], ["same"])], [("text", T.STRING, ["n", 1])],
     [("same", T.STRING, ["n", 1])])
