"""Every image-text pair of a split scored exactly, in blocks of images that survive a kill. I images, T texts.

Each image goes through the CNN once and each text through the word embeddings once; only the transformer runs per pair.
The blocks are dealt to the processes of the run.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_plugin.data.collate import pad_texts
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.sampler import evaluation_order
from pixelbert_plugin.distributed.parallel import share_buffers, whole
from pixelbert_plugin.distributed.processes import ALONE, Processes
from pixelbert_plugin.errors import UserError, replacing, writing
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation, ask, plain
from pixelbert_plugin.evaluation.score_blocks import BlockStore
from pixelbert_plugin.interfaces import MatchingModel
from pixelbert_plugin.precision.native import Precision
from pixelbert_plugin.system.progress import NoProgress
from pixelbert_plugin.tasks.base import MatchingTask, Result
from pixelbert_plugin.types import ImageMemory, Sample

logger = logging.getLogger(__name__)
IMAGES_PER_BLOCK = 16
SHOWN = 32  # images, evenly over the split, of which the best captions are told
TOP = 5  # of them


@dataclass
class ScoreMatrix:
    """Scores of all pairs; rows and columns in the split's order."""

    scores_IT: np.ndarray  # float32
    first_sample_I: np.ndarray  # a sample of each image, an index into the mixture
    samples_T: np.ndarray  # each text's sample, an index into the mixture
    image_of_text_T: np.ndarray  # row of each text's image
    num_skipped: int = 0  # images that could not be read and were left out with their texts, as on_bad_image=skip says

    def without(self, rows: list[int]) -> "ScoreMatrix":
        """The matrix without these images and their texts."""
        kept_I = np.delete(np.arange(len(self.first_sample_I)), rows)
        kept_T = np.flatnonzero(np.isin(self.image_of_text_T, kept_I))
        return ScoreMatrix(
            self.scores_IT[np.ix_(kept_I, kept_T)],
            self.first_sample_I[kept_I],
            self.samples_T[kept_T],
            np.searchsorted(kept_I, self.image_of_text_T[kept_T]),
            self.num_skipped + len(rows),
        )


@torch.no_grad()
def score_all_pairs(
    model: nn.Module,
    task: MatchingTask,
    loader: Loader,
    batch_size: int,
    precision: Precision,
    processes: Processes = ALONE,
    folder: Path | None = None,
    max_images: int | None = None,
    settings: str = "",
    progress: NoProgress | None = None,
) -> ScoreMatrix:
    """Score every text of the split with every image, `batch_size` pairs at a time; called in every process.

    The main process gets the whole matrix, without unreadable images where they may be skipped. With `folder`, finished
    blocks of images are kept there and not scored again by a later call for the same weights, pairs and image files,
    `batch_size` and `settings`: whatever else the scores depend on.
    """
    was_training, matching = model.training, cast(MatchingModel, model)
    model.eval()
    share_buffers(model, processes)
    matrix = _empty(loader.mixture.images_M, max_images)
    blocks = _blocks(loader, matrix)
    texts = _tokenized(loader, matrix.samples_T)
    bad_rows = []
    with whole(model), ExitStack() as open_now:
        missing, store = list(range(len(blocks))), None
        if folder is not None:
            all_settings = f"{settings} {batch_size} {precision.description}"
            marks = processes.on_main(lambda: _marks(model, loader, matrix, blocks, texts, all_settings))
            store = BlockStore(folder, *marks)
            open_now.enter_context(store.owned(processes.is_main))
            missing = processes.on_main(lambda: _lacking(store, matrix, blocks))
        embedded = list(_embedded(matching, loader, texts, batch_size, precision))
        own = missing[processes.rank :: processes.world_size]
        progress = open_now.enter_context(progress or NoProgress())
        progress.begin(sum(len(blocks[number]) for number in own) * len(texts))
        batches = loader.read_images([matrix.first_sample_I[blocks[number]] for number in own])
        for number, batch in zip(own, batches, strict=True):
            bad_I = batch.weights.cpu().numpy() == 0
            bad_rows += blocks[number][bad_I].tolist()
            with precision.autocast():
                images = matching.encode_images(batch)
            for columns_C, words_CLD, mask_CL in embedded:
                scores_IC = _score(matching, task, images, words_CLD, mask_CL, batch_size, precision)
                matrix.scores_IT[np.ix_(blocks[number], columns_C)] = scores_IC
                progress.advance(scores_IC.size)
            if store is not None and not bad_I.any():  # an unreadable image may be there again next time
                store.save(number, matrix.scores_IT[blocks[number]])
    model.train(was_training)
    scored = processes.gather((bad_rows, {number: matrix.scores_IT[blocks[number]] for number in own}))
    if scored is None:
        return matrix
    for _, part in scored:
        for number, scores in part.items():
            matrix.scores_IT[blocks[number]] = scores
    bad_rows = [row for rows, _ in scored for row in rows]
    return matrix.without(bad_rows) if bad_rows else matrix


def num_scored(loader: Loader, max_images: int | None) -> dict[str, float]:
    """How much of a split is scored: `num_images` and `num_texts`; `num_images_in_split` where `max_images` leaves some out."""
    images = int(loader.mixture.images_M.max()) + 1
    chosen = min(images, max_images or images)
    counts = {"num_images": float(chosen), "num_texts": float((loader.mixture.images_M < chosen).sum())}
    return counts | ({"num_images_in_split": float(images)} if chosen < images else {})


def _blocks(loader: Loader, matrix: ScoreMatrix) -> list[np.ndarray]:
    """Rows of the matrix by block. Images of like size stand together; the rows are put back in the split's order."""
    sizes = None if loader.sizes_M2 is None else loader.sizes_M2[matrix.first_sample_I]
    order_I = evaluation_order(np.arange(len(matrix.first_sample_I)), sizes)
    return [order_I[start : start + IMAGES_PER_BLOCK] for start in range(0, len(order_I), IMAGES_PER_BLOCK)]


def _lacking(store: BlockStore, matrix: ScoreMatrix, blocks: list[np.ndarray]) -> list[int]:
    """Numbers of the blocks that the store does not hold; those that it holds are filled in."""
    missing = []
    for number, rows in enumerate(blocks):
        scores = store.load(number, len(rows), matrix.scores_IT.shape[1])
        if scores is None:
            missing.append(number)
        else:
            matrix.scores_IT[rows] = scores
    if len(missing) < len(blocks):
        logger.info("%s holds %d of %d blocks of scores already", store.folder, len(blocks) - len(missing), len(blocks))
    return missing


def evaluate_matrix(task: MatchingTask, loader: Loader, matrix: ScoreMatrix) -> SplitEvaluation:
    """Metrics, and for each image the caption that was found for it. The matrix must be whole: for the main process.

    Raises UserError where no image could be read.
    """
    if not len(matrix.first_sample_I):
        raise UserError(f"the {loader.mixture.split} split: every image was skipped as unreadable; check the images' folder")
    best_I, images = matrix.scores_IT.argmax(1), len(matrix.first_sample_I)
    shown = {index * images // min(SHOWN, images) for index in range(min(SHOWN, images))}

    def ranked(row: int) -> list[dict[str, str]]:
        """The captions that were found for an image, best first; equal scores in the split's order."""
        best_5 = np.argsort(-matrix.scores_IT[row], kind="stable")[:TOP]
        texts = [loader.mixture[int(matrix.samples_T[column])].text for column in best_5]
        own = ["yes" if matrix.image_of_text_T[column] == row else "" for column in best_5]
        return [{"caption": text, "its own": is_own} for text, is_own in zip(texts, own, strict=True)]

    results = []
    for row, (first, best) in enumerate(zip(matrix.first_sample_I, best_I, strict=True)):
        sample, found = loader.mixture[int(first)], loader.mixture[int(matrix.samples_T[best])].text
        truth = found if matrix.image_of_text_T[best] == row else sample.text
        results.append(Result(sample, found, truth, rows=ranked(row) if row in shown else []))
    metrics = ask(task, lambda: plain(task.matrix_metrics(matrix.scores_IT, matrix.image_of_text_T)))
    if matrix.num_skipped:
        metrics["num_skipped"] = float(matrix.num_skipped)
    return SplitEvaluation(metrics, results)


def save_matrix(matrix: ScoreMatrix, loader: Loader, path: Path) -> Path:
    """predictions/<split>_<dataset>.safetensors: `scores` I T; ids of images and texts, in order, in its metadata."""
    from safetensors.numpy import save

    def sample(index: np.integer) -> Sample:
        return loader.mixture[int(index)]

    metadata = {
        "image_ids": json.dumps([sample(index).image_ids[0] for index in matrix.first_sample_I]),
        "text_ids": json.dumps([sample(index).sample_id for index in matrix.samples_T]),
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside:
            aside.write_bytes(save({"scores": matrix.scores_IT}, metadata))  # save_file's have mode 0600
    return path


def _empty(images_M: np.ndarray, max_images: int | None) -> ScoreMatrix:
    """Rows and columns of the split, of its first `max_images` images where that is given."""
    first_sample_I = np.unique(images_M, return_index=True)[1][:max_images]  # images are numbered by first use
    samples_T = np.flatnonzero(images_M < len(first_sample_I))
    scores_IT = np.full((len(first_sample_I), len(samples_T)), np.nan, dtype=np.float32)
    return ScoreMatrix(scores_IT, first_sample_I, samples_T, images_M[samples_T])


def _tokenized(loader: Loader, samples_T: np.ndarray) -> list[list[int]]:
    """Token ids of every text."""
    return [loader.reader.text(loader.mixture[int(index)].text)[0] for index in samples_T]


def _embedded(
    model: MatchingModel, loader: Loader, ids: list[list[int]], batch_size: int, precision: Precision
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Texts in chunks of like length: their columns, words_CLD and mask_CL."""
    by_length = np.argsort([len(row) for row in ids], kind="stable")
    for start in range(0, len(ids), batch_size):
        columns_C = by_length[start : start + batch_size]
        input_ids_CL, mask_CL = pad_texts([ids[column] for column in columns_C], loader.reader.text.pad_token_id)
        with precision.autocast():
            yield columns_C, model.embed_texts(input_ids_CL.to(loader.device)), mask_CL.to(loader.device)


def _score(
    model: MatchingModel,
    task: MatchingTask,
    images: ImageMemory,
    words_CLD: Tensor,
    mask_CL: Tensor,
    batch_size: int,
    precision: Precision,
) -> np.ndarray:
    """I C: the block's images with a chunk of texts."""
    count, texts = len(images.pixels), len(words_CLD)
    rows = max(1, batch_size // texts)
    scores = []
    for start in range(0, count, rows):
        pixels_IKD, pixel_mask_IK = images.pixels[start : start + rows], images.mask[start : start + rows]
        here = len(pixels_IKD)
        with precision.autocast():
            logits = model.pair_logits(
                words_CLD.repeat(here, 1, 1),
                mask_CL.repeat(here, 1),
                pixels_IKD.repeat_interleave(texts, dim=0),
                pixel_mask_IK.repeat_interleave(texts, dim=0),
            )
            scores.append(task.scores(logits).view(here, texts))
    return torch.cat(scores).cpu().numpy()


def _marks(
    model: nn.Module,
    loader: Loader,
    matrix: ScoreMatrix,
    blocks: list[np.ndarray],
    texts: list[list[int]],
    settings: str,
) -> tuple[str, list[bytes]]:
    """What kept scores are valid for: the fingerprint of what all depend on, and for each block its images' files."""
    are_kept = loader.features is not None  # features of images alone, whose last digits are others than a batch's
    digest = hashlib.sha256(
        f"{settings} {loader.device.type} {loader.reader.image.config} {loader.reader.text.pad_token_id} {are_kept}".encode()
    )
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        digest.update(name.encode())
        copied = value.detach().cpu().contiguous().clone()  # NumPy would hold a storage that FSDP frees
        digest.update(copied.view(-1).view(torch.uint8).numpy().data)
    for index, ids in zip(matrix.samples_T, texts, strict=True):
        digest.update(f"{loader.mixture[int(index)].sample_id} {ids}".encode())
    for rows in blocks:
        digest.update(f"{rows.tolist()}".encode())
    files = [loader.mixture[int(index)].images[0] for index in matrix.first_sample_I]
    return digest.hexdigest(), [" ".join(_state_of(files[row]) for row in rows).encode() for rows in blocks]


def _state_of(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return f"{file} none"
    return f"{file} {status.st_size} {status.st_mtime_ns}"
