"""Characters per second from a file of texts to token ids on disk, against `datasets.map` and sentencepiece.

    python benchmarks/bench_prepare.py SOURCE... [--smoke] [--kind unigram|bpe] [--vocab-size N] [--tokenizer FOLDER]
    python benchmarks/bench_prepare.py --memory [--gigabytes 2] [--workers 2]

SOURCE: files, folders or globs of distinct texts; their texts are written to one JSONL file first. Without any, or with
`--smoke`, the texts are made up. Prints a table, then one JSON line. Contenders run interleaved, each repetition in its
own process; numbers are medians. All use the same texts and two cores, and write the ids of the documents to disk.

    glmkit          `prepare`: normalises, drops equal texts, encodes, divides into train and valid, checksums, reports
    datasets        `load_dataset("json")`, then `map(batched=True, num_proc=2)` with the same tokenizer
    sentencepiece   `SentencePieceProcessor.encode` of lists, two threads, ids written with NumPy; a unigram model of the
                    same size, trained here on the same texts

With `--memory` a corpus of so many gigabytes is made up (Chinese and English) and prepared, with `--all-steps` with all of
them but the quality rules, which invented words break. The table shows the peak of the resident memory of all processes
together; pages that processes share count once (PSS).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONTENDERS = ("glmkit", "datasets", "sentencepiece")
WORKERS = 2
SAMPLE_LINES = 10_000


def made_up_texts(characters: int, seed: int = 0) -> Iterator[str]:
    """Yields distinct texts of invented words, Chinese and English by turns, with so many characters in all."""
    draw = random.Random(seed)
    han = ["".join(chr(0x4E00 + int(draw.paretovariate(0.6)) % 3000) for _ in range(draw.choice((1, 2, 2, 3)))) for _ in range(20_000)]  # fmt: skip
    latin = ["".join(draw.choices("etaoinshrdlucm", k=draw.randint(2, 10))) for _ in range(20_000)]
    sentences = {
        language: [
            separator.join(draw.choices(words, k=draw.randint(6, 16))) + end for _ in range(20_000)
        ]
        for language, words, separator, end in (("zh", han, "", "。"), ("en", latin, " ", ". "))
    }
    number = done = 0
    while done < characters:
        language = "zh" if number % 2 else "en"
        some = "".join(draw.choices(sentences[language], k=draw.randint(5, 60)))
        text = f"{number} {some.rstrip()}"  # `prepare` drops a space at the end, which is a token to others
        number, done = number + 1, done + len(text)
        yield text


def write_texts(texts: Iterator[str], path: Path) -> int:
    """Writes `{"text": …}` lines; returns the number of characters."""
    characters = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            characters += len(text)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return characters


def source_texts(sources: list[str]) -> Iterator[str]:
    """Yields the texts of corpora, once each."""
    from glmkit.corpus import read_documents

    seen: set[int] = set()
    for source in sources:
        for document in read_documents(source):
            if hash(document.text) not in seen:
                seen.add(hash(document.text))
                yield document.text


def run_glmkit(source: Path, folder: Path, tokenizer: str) -> int:
    """Prepares; returns the number of tokens."""
    from glmkit.tokens.prepare import prepare
    from glmkit.tokens.tokenizer import GLMTokenizer

    vocabulary = GLMTokenizer.from_pretrained(tokenizer)
    report = prepare(source, folder / "out", vocabulary, workers=WORKERS)
    return report.train.tokens + report.valid.tokens


def run_datasets(source: Path, folder: Path, tokenizer: str) -> int:
    """Maps; returns the number of tokens."""
    import datasets
    import pyarrow.compute

    from glmkit.tokens.tokenizer import GLMTokenizer

    datasets.disable_progress_bars()
    vocabulary = GLMTokenizer.from_pretrained(tokenizer)
    rows = datasets.load_dataset(
        "json", data_files=str(source), split="train", cache_dir=str(folder)
    )

    def encode(batch: dict) -> dict:
        ids = vocabulary(batch["text"], return_attention_mask=False, return_token_type_ids=False)
        return {"input_ids": ids["input_ids"]}

    mapped = rows.map(encode, batched=True, num_proc=WORKERS, remove_columns=["text"])
    lengths = pyarrow.compute.list_value_length(mapped.data.column("input_ids"))
    return pyarrow.compute.sum(lengths).as_py()


def run_sentencepiece(source: Path, folder: Path, tokenizer: str) -> int:
    """Encodes with the model beside the tokenizer; returns the number of tokens."""
    import numpy as np
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=f"{tokenizer}/sentencepiece.model")
    tokens = 0
    with source.open(encoding="utf-8") as lines, (folder / "ids.bin").open("wb") as out:
        while batch := [json.loads(line)["text"] for _, line in zip(range(1000), lines, strict=False)]:  # fmt: skip
            for ids in processor.encode(batch, num_threads=WORKERS, add_bos=True, add_eos=True):
                out.write(np.array(ids, np.uint16).tobytes())
                tokens += len(ids)
    return tokens


def measure(contender: str, source: Path, tokenizer: str) -> dict[str, float]:
    """Runs one contender in this process."""
    import glmkit.tokens.tokenizer  # noqa: F401  (imports do not count)

    if contender == "datasets":
        import datasets  # noqa: F401
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        start = time.perf_counter()
        tokens = globals()[f"run_{contender}"](source, Path(folder), tokenizer)
        return {"seconds": time.perf_counter() - start, "tokens": tokens}


def train(source: Path, folder: Path, kind: str, vocab_size: int, lines_read: int) -> None:
    """Trains the tokenizer on the first lines."""
    from glmkit.tokens.train import train_from_files

    sample = folder / "sample.jsonl"
    with source.open(encoding="utf-8") as lines:
        head = [line for _, line in zip(range(lines_read), lines, strict=False)]
    sample.write_text("".join(head), encoding="utf-8")
    train_from_files([str(sample)], folder / "tokenizer", vocab_size, kind)


def train_sentencepiece(folder: Path, vocab_size: int) -> None:
    """Trains a sentencepiece model on the same lines."""
    import sentencepiece

    head = (folder / "sample.jsonl").read_text(encoding="utf-8").splitlines()
    texts = (json.loads(line)["text"][:4000] for line in head)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_prefix=str(folder / "tokenizer" / "sentencepiece"),
        vocab_size=vocab_size,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Runs the contenders by turns and prints their medians."""
    source, size = folder / "texts.jsonl", arguments.vocab_size
    if arguments.smoke or not arguments.source:
        texts = made_up_texts(30_000 if arguments.smoke else 20_000_000)
        size = 2000 if arguments.smoke else size
    else:
        texts = source_texts(arguments.source)
    characters = write_texts(texts, source)
    tokenizer = arguments.tokenizer
    if tokenizer is None:
        train(source, folder, arguments.kind, size, SAMPLE_LINES)
        train_sentencepiece(folder, size)
        tokenizer = str(folder / "tokenizer")
    contenders = [one for one in CONTENDERS if Path(tokenizer, "sentencepiece.model").exists() or one != "sentencepiece"]  # fmt: skip
    runs: dict[str, list[dict[str, float]]] = {one: [] for one in contenders}
    for _ in range(1 if arguments.smoke else arguments.repetitions):
        for contender, results in runs.items():
            command = [sys.executable, __file__, str(source), "--contender", contender]
            done = subprocess.run([*command, "--tokenizer", tokenizer], capture_output=True, text=True, check=False)  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{contender} failed:\n{done.stderr}")
            results.append(json.loads(done.stdout.splitlines()[-1]))
    from glmkit.tokens.tokenizer import GLMTokenizer

    medians = {one: statistics.median(run["seconds"] for run in results) for one, results in runs.items()}  # fmt: skip
    print(
        f"{characters:,} characters, {WORKERS} cores, vocabulary of {len(GLMTokenizer.from_pretrained(tokenizer)):,} tokens"
    )
    print(f"{'':15}{'seconds':>9}{'characters/s':>14}{'against datasets':>18}{'tokens':>13}")
    for one, seconds in medians.items():
        ratio, tokens = medians["datasets"] / seconds, int(runs[one][0]["tokens"])
        print(f"{one:15}{seconds:9.2f}{characters / seconds:14,.0f}{ratio:18.2f}{tokens:13,}")
    speeds = {one: characters / seconds for one, seconds in medians.items()}
    print(json.dumps({"benchmark": "prepare", "characters": characters, "characters_per_second": speeds}))  # fmt: skip


def resident(root: int) -> int:
    """Returns the bytes in memory of a process and all that descend from it; shared pages count once (Linux)."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = path.joinpath("stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            parents[int(path.name)] = int(fields[1])
    family, before = {root}, set()
    while family != before:
        before = set(family)
        family |= {child for child, parent in parents.items() if parent in family}
    total = 0
    for one in family:
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure_memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Prepares a made-up corpus and prints the peak of memory."""
    source, size = folder / "texts.jsonl", 0.002 if arguments.smoke else arguments.gigabytes
    characters = write_texts(made_up_texts(int(size * 1e9 / 2)), source)  # a character is two bytes
    train(source, folder, arguments.kind, 2000, 1000)
    command = [sys.executable, "-c", "from glmkit.cli.main import main; main()", "prepare", str(source), "-o", str(folder / "out")]  # fmt: skip
    command += ["-t", str(folder / "tokenizer"), "--workers", str(arguments.workers)]
    if arguments.all_steps:
        command += ["--simplify", "--language", "zh", "--language", "en", "--mask-personal"]
        command += ["--near-duplicates", "--decontaminate", str(folder / "sample.jsonl")]
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.25)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit("prepare failed")
    print(f"{source.stat().st_size / 1e9:.2f} GB, {characters:,} characters, {arguments.workers} workers, {'all but quality' if arguments.all_steps else 'default'} steps")  # fmt: skip
    print(f"{'seconds':>9}{'characters/s':>14}{'peak MiB':>10}")
    print(f"{seconds:9.1f}{characters / seconds:14,.0f}{peak / 2**20:10.0f}")
    print(json.dumps({"benchmark": "prepare-memory", "bytes": source.stat().st_size, "peak_mib": peak / 2**20, "seconds": seconds}))  # fmt: skip


def main() -> None:
    """Runs the benchmark, or with `--contender` one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="*", help="files, folders or globs of distinct texts")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--kind", default="unigram", choices=("unigram", "bpe", "wordpiece"))
    parser.add_argument("--vocab-size", type=int, default=16_000)
    parser.add_argument("--tokenizer", help="a folder, instead of training one")
    parser.add_argument("--memory", action="store_true", help="measure memory, not speed")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument(
        "--all-steps", action="store_true", help="with --memory: not only the default"
    )
    parser.add_argument("--folder", type=Path, help="for the files, removed afterwards")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(measure(arguments.contender, Path(arguments.source[0]), arguments.tokenizer)))  # fmt: skip
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-prepare-", dir=arguments.folder))
    try:
        (measure_memory if arguments.memory else compare)(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
