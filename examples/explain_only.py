"""Only the explanation: what matters in a model, by several methods, as scores and as pictures."""

import numpy as np
from digits import ready

import keras_xaic as xaic
from keras_xaic.relevance import Attribution, layer_rows, plot_layers, plot_sample

model_path, data_path = ready()
model, data = xaic.load_model(model_path), xaic.load_data(data_path)
samples = data.calibration(128)

for rule in ("lrp.epsilon", "deeplift.rescale", "taylor", "magnitude"):
    relevance = xaic.attribute(model, samples, samples.labels, rule=rule)
    scores = {row.name: row.relevance for row in layer_rows(model, relevance)}
    print(f"{rule:<18}", "  ".join(f"{name} {score:8.3g}" for name, score in scores.items()))

relevance = xaic.attribute(model, samples, samples.labels)
order = np.argsort(relevance.filters["conv_0"])
print("least relevant filters of conv_0:", order[:5].tolist(), "most relevant:", order[-3:][::-1].tolist())
plot_layers(relevance).savefig("build/examples/layers.png", dpi=120)  # an ordinary matplotlib figure

maps = Attribution(model, rule="lrp.gamma").input_relevance(data.test.x[:3], data.test.y[:3])[0]
for i, one in enumerate(maps):
    figure = plot_sample(data.test.x[i], one, title=f"a {data.test.y[i]}: what speaks for it, what against")
    figure.savefig(f"build/examples/digit-{i}.png", dpi=120)
print("pictures: build/examples/layers.png, build/examples/digit-*.png")
