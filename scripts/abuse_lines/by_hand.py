"""Command lines that are not a change of one key: sweeps, paths, duplicates, incompatible groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scripts.abuse_lines.lines import Line

from warmstart.main import CONF

NEW = ("stage=finetune", "init=scratch", "visualization=[]")
PATHS = (
    "nowhere",
    "'my run'",
    "'it\\'s'",
    "'ümläut/ß'",
    "'a,b'",
    "'{x}'",
    "'~/none'",
    "/",
    "..",
    "'" + "x" * 5000 + "'",
)
SETTINGS = (
    *(
        "loss.label_smoothing=nan",
        "trainer.limit_train_batches=inf",
        "trainer.precision=64",
        "trainer.precision=64-true",
        "trainer.precision=16-true",
    ),
    *(
        "trainer.accelerator=tpu",
        "trainer.accelerator=hpu",
        "+trainer.num_nodes=2",
        "resume=''",
        "logger=abc",
        "logger=null",
        "logger.tensorboard.x=1",
        "visualization=abc",
        "+x=1",
    ),
    *("+trainer.fast_dev_run=true", "+trainer.strategy=ddp", "+trainer.logger=false", "+trainer.callbacks=[]"),
    *("+data.pack=128", "+data.foo=1", "+data.augment.foo=1", "+optimizer.params=1", "+scheduler.total=5"),
    *("+backbone.spec=1", "+objective.loss=1", "+loss.outputs=1", "+strategy.foo=1", "+average.foo=1", "+snapshots=3"),
    *("loss._target_=os.system", "loss._target_=warmstart.loss.none", "backbone._target_=nothing", "data._target_=a.b"),
    *("trainer._target_=pytorch_lightning.Foo", "optimizer._target_=torch.optim.Foo", "data.batch_size=1e3"),
    *("optimizer.betas=[0.9]", "optimizer.betas=[0.9,1]", "optimizer.betas=[0.9,nan]", "+optimizer.eps=-1"),
    *("trainer.max_time=00:00:00", "trainer.max_time='1 day'", "trainer.profiler=foo"),
    *(
        "trainer.max_epochs=-1",
        "trainer.max_epochs=0",
        "trainer.val_check_interval=1000000",
        "reinitialize=abc",
        "reinitialize=[1]",
    ),
    *("trust=abc", "trust=[1]", "output_dir=null", "output_dir=''", "output_dir=5", "seed=1.0", "seed='1'", "test=1"),
    *("data.folds=1000", "data.labels_per_class=100000", "data.label_fraction=0"),
    *("data/augment=vtlp", "data.augment.side=0.5", "backbone.hidden=5", "backbone.hidden=[0]"),
    *("backbone.hidden=[1e3]", "backbone.hidden=[100000000000,100000000000]", "backbone={a: 1}"),
    *("experiment=5", "experiment=[digits]", "loss=[mse]", "optimizer={lr: -1}", "sweep.retries=abc", "sweep.foo=1"),
)
RIGHT = (
    (*NEW, "+trainer.benchmark=true"),
    ("stage=finetune", "stage=pretrain", "seed=1", "seed=2"),  # the last one holds, as everywhere in Hydra
    (*NEW, "+trainer.limit_predict_batches=1"),
    (*NEW, "+optimizer.eps=1e-6"),
    (*NEW, "trainer.max_time=00:01:00", "trainer.max_epochs=-1"),
    (*NEW, "trainer.max_tokens=1e5"),
    (*NEW, "trainer.precision=bf16-mixed"),
    (*NEW, "trainer.precision=32"),
    (*NEW, "trainer.precision=bf16-true"),
    ("stage=pretrain", "visualization=[]", "trainer.precision=bf16-true", "data/augment=crop"),
    (*NEW, "patience=5"),
    (*NEW, "data.labels_per_class=5"),
    (*NEW, "data.label_fraction=0.5", "data.folds=5"),
    (*NEW, "trainer.limit_train_batches=0.5"),
    (*NEW, "data=[digits,digits2:digits]"),
    (*NEW, "~loss"),
    ("stage=transfer", "+arm.mine.init=scratch", "+arm.mine.optimizer.lr=0.01", "transfer.arms=[scratch,mine]"),
    ("stage=transfer", "+backbone@arm.wide.backbone=resnet", "+arm.wide.init=scratch", "transfer.arms=[scratch,wide]"),
    ("stage=transfer", "~transfer.budgets.converged"),
    ("stage=transfer", "transfer.labels=[0.1,all]", "transfer.seeds=2"),
    ("stage=transfer", "transfer.arms=[full,scratch,l2_sp]", "+arm.l2_sp.optimizer.weight_decay=0"),
    ("-m", "stage=pretrain", "optimizer.lr=0.1,0.01", "sweep.preflight=false"),
    ("-m", *NEW, "loss=cross_entropy,focal", "seed=range(3)", "sweep.preflight=false"),
)
ARMS = (
    *("arm.scratch.init=nowhere", "arm.scratch.init=null", "arm.scratch.init=5", "arm.scratch.init=hf:nowhere/none"),
    *("+arm.scratch.foo=1", "+arm.scratch.optimizer.lr=-1", "+arm.scratch.loss.label_smoothing=nan", "arm.scratch=5"),
    *("+arm.scratch.preprocessor=nowhere", "arm.pretrained.against=nobody", "arm.trivial.baseline=abc", "arm=5"),
    *("transfer.start=nowhere", "transfer.start=hf:nowhere/none", "transfer.start=/", "transfer.start=''"),
    *(
        "transfer.arms=[nobody]",
        "transfer.arms=[]",
        "transfer.arms=scratch",
        "transfer.labels=[0]",
        "transfer.labels=5",
    ),
    *("transfer.labels=[1.0]", "transfer.budgets.total=[scratch,nobody]", "+transfer.budgets.forever=[scratch]"),
    *("transfer.require=maybe", "transfer.pretrain_seeds=3", "pretrain.backbone=vit", "+pretrain.x=1", "pretrain=5"),
    *("+arm.scratch.trainer.accelerator=tpu", "+arm.scratch.data.batch_size=0", "pretrain.trainer.precision=64"),
    *("pretrain.objective.drop=7", "objective=regression", "pretrain.trainer.max_epochs=-1", "init=hf:x"),
    *("+backbone.heads=3", "backbone.dropout=2", "pretrain.init=nowhere", "+arm.scratch.backbone=vit"),
)
SWEPT = (
    *("optimizer.lr=0.1,-1", "optimizer.lr=0.1,nan", "seed=1,abc", "trainer.precision=32,64", "loss.gamma=1,-1"),
    *("loss.gamma=1,nan", "trainer.accelerator=cpu,tpu", "+x=1,2", "data.batch_size=8,null", "trainer.max_epochs=1,0"),
    *(
        "init=scratch,nowhere",
        "logger=csv,abc",
        "backbone.dropout=0,1",
        "sweep.retries=-1",
        "sweep.on_failure=maybe",
    ),
    *(
        "sweep.resume=nowhere",
        "sweep.resume=''",
        "sweep.preflight=abc",
        "+sweep.x=1",
        "output_dir=a,b",
        "loss=focal,foo",
    ),
    *("optimizer.lr=interval(0,1)", "optimizer.lr=", "seed=range(0)", "run=a,b"),
)
STAGES = {
    "evaluate": (
        "run=null",
        "run=''",
        "run=5",
        "run=[a]",
        "run={a: 1}",
        "+data=digits",
        "+trainer.max_epochs=1",
        "loss=mse",
    ),
    "export": ("format=onnx", "format=null", "folder=5", "folder=''", "folder=[a]", "run=nan"),
    "generate": (
        *("length=0", "length=abc", "length=null", "samples=-1", "samples=1.5", "temperature=-1", "temperature=nan"),
        *("temperature=null", "top_k=0", "top_k=1.5", "top_p=0", "top_p=2", "top_p=inf", "prompt=[a]", "prompt={a: 1}"),
    ),
    "predict": (
        *("input=null", "input=''", "input=5", "input=nowhere", "data.on_error=abc", "data.separator=''"),
        *("data.missing_columns=abc", "data.missing_values=abc", "data=digits", "+data.root=x", "data.on_error=null"),
    ),
    "report": ("runs=null", "runs=''", "runs=5", "runs=nowhere", "runs=[a,b]"),
    "rerun": ("run=null", "run=''", "run=5", "run=nowhere", "run=latest"),
    "soup": ("runs=null", "runs=nowhere", "method=abc", "method=null", "runs=5"),
}
NEEDED = {"predict": "input=/dev/null", "report": "runs=nowhere", "rerun": "run=nowhere", "soup": "runs=nowhere"}
WHOLLY = (
    *(
        ("loss=null",),
        ("loss=",),
        ("backbone=null",),
        ("=5",),
        ("+=5",),
        ("~",),
        ("stage",),
        ("stage=",),
        ("stage=null",),
    ),
    *(
        ("stage=nope",),
        ("experiment=nope",),
        ("data=[a]",),
        ("data=[digits,digits]",),
    ),
    *(("data=[digits,nope]",), ("data=[stage:digits,b:digits]",), ("data=[a,b]", "data=[c,d]"), ("optimizer.lr=a,b",)),
    *(("optimizer.lr='",), ("optimizer.lr={",), ("optimizer.lr=[",), ("optimizer.lr=${nope}",), ("optimizer.lr=${",)),
    *(("seed=1", "seed=2", "seed=abc"), ("stage=finetune", "init=a b"), ("stage=finetune", "init=(a)")),
    *(("stage=pretrain", "strategy=full"), ("stage=pretrain", "++strategy=full"), ("stage=evaluate", "backbone=vit")),
    *(("stage=pretrain", "loss=focal"), ("stage=finetune", "loss=mse", "init=scratch"), ("debug=nope",), ("debug=5",)),
    *(("stage=pretrain", "backbone=resnet", "data=vectors"), ("stage=pretrain", "optimizer.lr.x=1")),
    *(("stage=pretrain", "optimizer@loss=adamw"), ("stage=pretrain", "+optimizer@x=adamw"), ("sweep=nope",)),
    *(("stage=pretrain", "++hydra.foo.bar")),
)


def by_hand(folder: Path) -> Iterator[Line]:
    """The lines; those that must be accepted are marked."""
    for words in RIGHT:
        yield Line(words, " ".join(words), "by hand", right=True, wholly=words[0] == "-m")
    for setting in SETTINGS:
        key, _, value = setting.partition("=")
        yield Line((*NEW, setting), key.lstrip("+"), f"={value}", right=False, wholly=(CONF / key).is_dir())
    yield Line((*NEW, "loss=focal", "loss.gamma=-1"), "loss.gamma", "=-1", right=False)
    yield Line((*NEW, "optimizer=sgd", "optimizer.nesterov=true"), "optimizer.nesterov", "=true", right=False)
    for setting in ARMS:
        yield Line(("stage=transfer", setting), setting, "by hand", right=False)
    for setting in SWEPT:
        more = ("loss=focal",) if setting.startswith("loss.") else ()
        words = ("-m", *NEW, *more, "sweep.preflight=false", setting)
        yield Line(
            tuple(word for word in words if not word.startswith("init=") or word == setting or "init=" not in setting),
            setting,
            "swept",
            right=False,
            wholly=True,
        )
    for stage, settings in STAGES.items():
        for setting in settings:
            needed = (
                () if setting.partition("=")[0] == NEEDED.get(stage, "").partition("=")[0] else (NEEDED.get(stage),)
            )
            words = (f"stage={stage}", *filter(None, needed), setting)
            yield Line(words, setting, "by hand", right=False)
    for path in PATHS:
        for words in (("stage=finetune", "init={}"), ("stage=evaluate", "run={}"), ("stage=pretrain", "init={}")):
            typed = tuple(word.replace("{}", path) for word in words)
            yield Line(typed, typed[1], "path", right=False)
        yield Line(("stage=finetune", f"resume={path}"), f"resume={path}", "path", right=False)
        yield Line(("stage=report", f"runs={path}"), f"runs={path}", "path", right=False)
        yield Line(("stage=predict", f"input={path}"), f"input={path}", "path", right=False)
        yield Line(("stage=transfer", f"transfer.start={path}"), f"transfer.start={path}", "path", right=False)
        yield Line(("stage=transfer", f"arm.scratch.init={path}"), f"arm.scratch.init={path}", "path", right=False)
    for words in WHOLLY:
        yield Line(words, " ".join(words), "by hand", right=False, wholly=True)
