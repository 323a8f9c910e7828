"""The help text of `igc-dist`, with all available groups and choices."""

from __future__ import annotations

from igc_dist import config

HELP = """\
igc-dist - what a model has learned from a whole data set, split over its input features

  igc-dist [run] [overrides]     compute; without overrides the embedded demo (handwritten digits)
  igc-dist audit [overrides]     the same with experiment=audit: what in photographs carries a model's agreement
  igc-dist plan [overrides]      print shards, gradient evaluations, memory, disk, time and its bottleneck;
                                 exit 2 if they do not fit
  igc-dist -m a=1,2 b=x,y        sweep: one run per combination, finished ones are skipped
  igc-dist verify STORE          check every file of a store (run again to repair it), and results against shards;
                                 --quick: files only
  igc-dist report STORE [DIR]    write report.html and PNG files, beside the store or into DIR; --max-outputs 32,
                                 --outputs 3,17 or names, --sort correlation|n|se, --no-images
  igc-dist export STORE --to KIND DIR      KIND folder: PNG and CSV; fiftyone: a FiftyOneDataset; virelay: a project in
                                 HDF5 (the last two of stores with samples)
  igc-dist compare STORE STORE.. what differs: specs, correlations, maps; with --to DIR in sweep.html and .csv too; of
                                 stores with metrics their scores by method and steps, in study.csv, .zarr and .html;
                                 --reference METHOD
  igc-dist ask STORE QUESTION    from its states: slices, how their maps differ; spurious, what one slice alone has;
                                 models OTHER, drift OTHER: another store of the same data, or of the same model;
                                 influence, the samples that carry an output, twins, wrong targets; --feature 3,4
                                 strategies, clusters of samples by their attributions
                                 --slices A,B --outputs --map igc --fdr 0.05 --level 0.95 --top 10 --csv --json
  igc-dist info STORE            status, spec, arrays and provenance
  igc-dist merge STORE.. OUT     one store of the shards that several sites made of one run, or of runs over
                                 disjoint data (--overlap)
  igc-dist compact STORE OUT     the same store in few files
  igc-dist models [FAMILY [PATTERN]]       names for model=timm or torchvision: igc-dist models timm 'vit*'
  igc-dist info STORE --watch    a running store, live: shards done, rate, time left, each rank; ends with the run
                                 (0 complete, else 2)
  torchrun --nproc-per-node N -m igc_dist [overrides]     the same on N ranks, with the same bits; srun works too

Overrides are Hydra's: group=choice selects a file of conf/, key=value sets a leaf. Groups and choices:

{groups}

Often used:
  method=igc baseline=samples baseline.k=8 quadrature=gauss_legendre quadrature.n_steps=8 statistic=all
  store.path=DIR store.samples=true fabric.devices=2 fabric.precision=bf16-mixed precision.tol=0.02
  target.outputs=[0,3] seed=1 plan.n_folds=32 plan.output_block=8 plan.micro_batch=256 plan.host_memory=8
  on_nonfinite=skip on_bad_sample=skip report.enabled=false
  quadrature=auto                            by the activations
  method=ig_adaptive method.attributor.tol=1e-3      to a tolerance, sample by sample
  plan.trial=true model.channels_last=auto   the fastest is found by a trial and remembered
  data.prefetch=false                        no reading ahead
  design=pairs design.n_draws=4              the cheapest IGC: gradients between pairs of samples
  design=stratified                          for other baselines
  budget.rel_se=0.05 | budget.gradients=1000000 | budget.seconds=600      folds are added until then
  target.n_others=3                          of labels
  method=ig target=own | predicted | top:5   each sample for outputs of its own: the gradients of these alone
  filter=correct | 'confident(0.8)' | site==north | 'indices FILE'        which samples count
  data.x=pixel_values data.y=labels          samples that are dicts: the keys of x and of y
  model=timm model.name=vit_base_patch16_224 model.weights=vit.safetensors      or torchvision, transformers, ...
  target.outputs=[golden_retriever,243] | present | top:20 | 'positives>=30'      classes, by name or number of samples
  data.slices=site data.weights=weight       attributes of the data set
  reduce=patches reduce.size=8               sums of features
  reduce=[channels,bands:8] | [colour,patches:16]      one after the other; of frequencies, of luminance and chroma
  metric=[insertion,sic] metric.insertion.start=blurred      scores of the map of each sample
  method=guided_ig method.attributor.n_steps=50 | blur_ig | ig2 baseline=references | idgi      other paths
  experiment=gallery                         all of them
  fabric.devices=8 fabric.num_nodes=64 fabric.rates.flops=4e14      for plan: what it would take on 512 ranks
  model.final_layer=fc plan.mode=forward     many outputs
  model.categories=50                        categorical inputs
  profile=true                               a trace of a few forward passes
run.json in the run's folder says how the run went, in one document.
Your own model and data (any class or function of yours that returns them):
  igc-dist --allow-target mypkg model.build._target_=mypkg.net +model.build.width=64 model.weights=net.safetensors \\
           data.build._target_=mypkg.Data target=one_hot
Options:
  --allow-target PACKAGE    let the configuration build classes of this package (only here, never in a file)
  --path DIR                import from this folder too: . for your own file beside you
  --trust                   let model.weights be a file that holds code, your own: a pickle or TorchScript
                            (only here, never in a file)
  -m, --multirun            sweep          --cfg job   print the composed configuration
  --config-dir DIR          add a folder of your own groups                --version, --help, --hydra-help

Object stores (pip install 'igc-dist[s3]'): s3://bucket/prefix, gs://bucket/prefix, az://container/prefix as store.path
and STORE. Endpoint, region and credentials come from the environment only: AWS_ENDPOINT_URL AWS_REGION
AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ALLOW_HTTP=true AWS_TIMEOUT=300s (of a request), GOOGLE_*, AZURE_*.
Logs and page stay in the run's folder, ./NAME.run for report.

Exit codes: 0 done, 2 bad configuration, 3 bad model or data, 4 non-finite values or too low a precision,
75 stopped by a signal (resumes). Under torchrun they are those of the ranks; torchrun itself ends with 1.
"""


def text() -> str:
    """The whole help."""
    groups = sorted(path for path in config.folder().iterdir() if path.is_dir())
    lines = [f"  {group.name:<11}{' '.join(sorted(path.stem for path in group.glob('*.yaml')))}" for group in groups]
    return HELP.replace("{groups}", "\n".join(lines))
