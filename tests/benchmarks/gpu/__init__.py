"""The engine on a CUDA device: `python -m tests.benchmarks.gpu report.json`. Reports of past runs lie here, by card and
date."""
