"""Every image-text pair of a split scored exactly, in blocks of images that survive a kill. I images, T texts.

Each image goes through the CNN once and each text through the word embeddings once; only the transformer runs per pair.
The blocks are dealt to the processes of the run.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pixelbert_plugin.data.collate import pad_texts
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.order import evaluation_order
from pixelbert_plugin.engine.dist import ALONE, Processes
from pixelbert_plugin.engine.evaluator import Evaluation
from pixelbert_plugin.engine.parallel import share_buffers, whole
from pixelbert_plugin.engine.precision import Fp32
from pixelbert_plugin.errors import UserError, replacing, writing
from pixelbert_plugin.tasks.base import MatchingTask, Result
from pixelbert_plugin.types import ImageMemory

logger = logging.getLogger(__name__)
IMAGES_PER_BLOCK = 16


@dataclass
class ScoreMatrix:
    """Scores of all pairs; rows and columns in the split's order."""

    scores_IT: np.ndarray  # float32
    first_sample_I: np.ndarray  # a sample of each image, an index into the mixture
    samples_T: np.ndarray  # each text's sample, an index into the mixture
    image_of_text_T: np.ndarray  # row of each text's image


@torch.no_grad()
def score_all_pairs(
    model: nn.Module,
    task: MatchingTask,
    loader: Loader,
    batch_size: int,
    precision: Fp32,
    processes: Processes = ALONE,
    folder: Path | None = None,
    max_images: int | None = None,
) -> ScoreMatrix:
    """Score every text of the split with every image, `batch_size` pairs at a time; called in every process.

    The main process gets the whole matrix. With `folder`, finished blocks of images are kept there and not scored again by
    a later call for the same weights, split and options. Raises UserError where an image cannot be read: a matrix has no
    place for a skipped one.
    """
    was_training = model.training
    model.eval()
    share_buffers(model, processes)
    matrix = _empty(loader.images_M, max_images)
    blocks = _blocks(loader, matrix)
    with whole(model):
        store, missing = _open_store(model, loader, matrix, blocks, precision, processes, folder)
        texts = list(_embedded(model, loader, matrix.samples_T, batch_size, precision))
        truncated_texts = loader.truncated_texts
        own = missing[processes.rank :: processes.world_size]
        batches = loader.read([matrix.first_sample_I[blocks[number]] for number in own])
        for number, batch in zip(own, batches, strict=True):
            if batch.bad_images:
                raise UserError(
                    f"{batch.bad_images[0]}; retrieval scores every image, so none can be skipped: restore the file"
                )
            with precision.autocast():
                images = model.encode_images(batch)
            for columns_C, words_CLD, mask_CL in texts:
                scores_IC = _score(model, task, images, words_CLD, mask_CL, batch_size, precision)
                matrix.scores_IT[np.ix_(blocks[number], columns_C)] = scores_IC
            if store is not None:
                store.save(number, matrix.scores_IT[blocks[number]])
    # without the texts that came along with the images; every process embeds all texts, one counts
    loader.truncated_texts = truncated_texts if processes.is_main else 0
    model.train(was_training)
    scored = processes.gather({number: matrix.scores_IT[blocks[number]] for number in own})
    for number, scores in ((number, scores) for part in scored or [] for number, scores in part.items()):
        matrix.scores_IT[blocks[number]] = scores
    return matrix


def _blocks(loader: Loader, matrix: "ScoreMatrix") -> list[np.ndarray]:
    """Rows of the matrix by block. Images of like size stand together; the rows are put back in the split's order."""
    sizes = None if loader.sizes_M2 is None else loader.sizes_M2[matrix.first_sample_I]
    order_I = evaluation_order(np.arange(len(matrix.first_sample_I)), sizes)
    return [order_I[start : start + IMAGES_PER_BLOCK] for start in range(0, len(order_I), IMAGES_PER_BLOCK)]


def _open_store(
    model: nn.Module,
    loader: Loader,
    matrix: "ScoreMatrix",
    blocks: list[np.ndarray],
    precision: Fp32,
    processes: Processes,
    folder: Path | None,
) -> "tuple[BlockStore | None, list[int]]":
    """The store of finished blocks, where there is a folder for it, and the numbers of those that it lacks."""
    if folder is None:
        return None, list(range(len(blocks)))
    fingerprint = _fingerprint(model, loader, matrix, precision)

    def lacking() -> list[int]:
        store = BlockStore(folder, fingerprint)
        store.keep_only_this()
        return [number for number in range(len(blocks)) if not store.load(number, matrix, blocks[number])]

    missing = processes.on_main(lacking)
    if len(missing) < len(blocks):
        logger.info("%s holds %d of %d blocks of scores already", folder, len(blocks) - len(missing), len(blocks))
    return BlockStore(folder, fingerprint), missing


def evaluate_matrix(task: MatchingTask, loader: Loader, matrix: ScoreMatrix) -> Evaluation:
    """Metrics, and for each image the caption that was found for it. The matrix must be whole: for the main process."""
    best_I = matrix.scores_IT.argmax(1)
    results = []
    for row, (first, best) in enumerate(zip(matrix.first_sample_I, best_I, strict=True)):
        sample, found = loader.mixture[int(first)], loader.mixture[int(matrix.samples_T[best])].text
        truth = found if matrix.image_of_text_T[best] == row else sample.text
        results.append(Result(sample, found, truth))
    return Evaluation(task.matrix_metrics(matrix.scores_IT, matrix.image_of_text_T), results)


def save_matrix(matrix: ScoreMatrix, loader: Loader, path: Path) -> Path:
    """predictions/<split>_<dataset>.safetensors: `scores` I T; ids of images and texts, in order, in its metadata."""
    from safetensors.numpy import save

    def sample(index: np.integer):
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


class BlockStore:
    """Finished blocks of one score matrix, `block_00012.npy` each."""

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint

    def keep_only_this(self) -> None:
        """Delete blocks of other weights or options."""
        with writing(self.folder):
            mark = self.folder / "fingerprint"
            if not mark.exists() or mark.read_text() != self.fingerprint:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                mark.write_text(self.fingerprint)

    def load(self, number: int, matrix: ScoreMatrix, rows: np.ndarray) -> bool:
        """Fill in a finished block; False where there is none that is whole."""
        try:
            block = np.load(self._path(number), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        if block.shape != (len(rows), matrix.scores_IT.shape[1]) or block.dtype != np.float32:
            return False
        matrix.scores_IT[rows] = block
        return True

    def save(self, number: int, scores: np.ndarray) -> None:
        path = self._path(number)
        with writing(path), replacing(path) as aside, aside.open("wb") as file:
            np.save(file, scores)

    def _path(self, number: int) -> Path:
        return self.folder / f"block_{number:05d}.npy"


def _empty(images_M: np.ndarray, max_images: int | None) -> ScoreMatrix:
    """Rows and columns of the split, of its first `max_images` images where that is given."""
    first_sample_I = np.unique(images_M, return_index=True)[1][:max_images]  # images are numbered by first use
    samples_T = np.flatnonzero(images_M < len(first_sample_I))
    scores_IT = np.full((len(first_sample_I), len(samples_T)), np.nan, dtype=np.float32)
    return ScoreMatrix(scores_IT, first_sample_I, samples_T, images_M[samples_T])


def _embedded(
    model: nn.Module, loader: Loader, samples_T: np.ndarray, batch_size: int, precision: Fp32
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Texts in chunks of like length: their columns, words_CLD and mask_CL."""
    reader, device = loader.reader, loader.device
    encoded = [reader.text(reader.mixture[int(index)].text) for index in samples_T]
    loader.truncated_texts = sum(is_cut for _, is_cut in encoded)
    ids = [row for row, _ in encoded]
    by_length = np.argsort([len(row) for row in ids], kind="stable")
    for start in range(0, len(ids), batch_size):
        columns_C = by_length[start : start + batch_size]
        input_ids_CL, mask_CL = pad_texts([ids[column] for column in columns_C], reader.text.pad_token_id)
        with precision.autocast():
            yield columns_C, model.embed_texts(input_ids_CL.to(device)), mask_CL.to(device)


def _score(
    model: nn.Module,
    task: MatchingTask,
    images: ImageMemory,
    words_CLD: Tensor,
    mask_CL: Tensor,
    batch_size: int,
    precision: Fp32,
) -> np.ndarray:
    """I C: the block's images with a chunk of texts."""
    count, texts = len(images.pixels), len(words_CLD)
    rows = max(1, batch_size // texts)
    scores = []
    for start in range(0, count, rows):
        pixels_IKD, pixel_mask_IK = images.pixels[start : start + rows], images.mask[start : start + rows]
        here = len(pixels_IKD)
        with precision.autocast():
            words_QLD, _, _ = model.fuse(
                words_CLD.repeat(here, 1, 1),
                mask_CL.repeat(here, 1),
                pixels_IKD.repeat_interleave(texts, dim=0),
                pixel_mask_IK.repeat_interleave(texts, dim=0),
            )
            scores.append(task.scores(model.cls_logits(words_QLD)).view(here, texts))
    return torch.cat(scores).cpu().numpy()


def _fingerprint(model: nn.Module, loader: Loader, matrix: ScoreMatrix, precision: Fp32) -> str:
    """Changes with the weights, the pairs, the processors and the precision: with whatever scores depend on."""
    digest = hashlib.sha256(f"{precision.description} {loader.image.config} {loader.reader.text.config}".encode())
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    for index in matrix.samples_T:
        sample = loader.mixture[int(index)]
        digest.update(f"{sample.sample_id} {sample.images[0]} {sample.text}".encode())
    return digest.hexdigest()
