"""The options of `pixelbert-data make`, with unit and default."""

from dataclasses import dataclass, field

from pixelbert_plugin.registry.schema import FilePath, require

BACKBONE_SIDE = 32  # pixels


@dataclass(kw_only=True)
class WorldConfig:
    """How large the world is. The defaults take two or three minutes on two cores and about 300 MB."""

    out: FilePath = ""  # folder to write; afterwards it serves as env.data_dir
    seed: int = 1  # the world is a function of it and of the sizes below
    overwrite: bool = False  # delete the files of the world that `out` holds
    processes: int | None = None  # processes that draw. None: one for each core
    coco_train_images: int = 5000  # images of train2014, all of them Karpathy's train
    coco_restval_images: int = 500  # images of val2014 that are Karpathy's restval
    coco_val_images: int = 200  # images of val2014 that are Karpathy's val
    coco_test_images: int = 200  # images of val2014 that are Karpathy's test
    coco_test2015_images: int = 200  # images of test2015, which only VQA's test questions are about
    questions_per_image: int = 6  # questions of VQA about one image
    annotator_disagreement: float = 0.12  # share of single answers of VQA that differ from the truth, 0…1
    vg_images: int = 5000  # images of Visual Genome, shared ones included
    vg_coco_images: int = 2000  # of those: images shared with COCO, three in ten with Karpathy's val and test
    vg_flickr_images: int = 40  # of those: images shared with Flickr30K's val and test
    flickr_train_images: int = 1600  # images of Flickr30K's train
    flickr_val_images: int = 100  # images of Flickr30K's val
    flickr_test_images: int = 100  # images of Flickr30K's test
    nlvr2_train_sets: int = 1800  # sets of four image pairs of NLVR2's train
    nlvr2_dev_sets: int = 100  # sets of dev
    nlvr2_test1_sets: int = 100  # sets of test1
    nlvr2_test2_sets: int = 50  # sets of test2, half of them about held-out combinations
    statements_per_set: int = 6  # most statements of NLVR2 about the four image pairs of a set
    backbone_updates: int = 250  # updates that teach ResNet-18 single figures, for resnet18.safetensors. 0: no such file
    # pixels a side of those single figures' images: 32 as in scenes of 64 × 96, 72 as in 144 × 192; of all but 32 the file's
    # name tells it: resnet18_72.safetensors
    backbone_sides: list[int] = field(default_factory=lambda: [BACKBONE_SIDE])
    held_out_share: float = 0.25  # share of the images of COCO's Karpathy val and test with a held-out combination, 0…1

    def check(self) -> None:
        if not self.out:
            raise ValueError("out: names no folder; give out=PATH")
        require(self, "seed", low=0, high=2**63 - 1)
        require(self, "processes", "questions_per_image", "statements_per_set", low=1)
        require(self, "backbone_updates", low=0)
        sides = self.backbone_sides
        if not sides or min(sides) < BACKBONE_SIDE or len(set(sides)) < len(sides):
            raise ValueError(f"backbone_sides: {sides}: give one or more sides of at least {BACKBONE_SIDE} pixels, each once")
        require(self, "annotator_disagreement", low=0, high=0.3)
        require(self, "held_out_share", low=0, high=1)
        require(self, *(name for name in vars(self) if name.endswith(("_images", "_sets"))), low=1)
        captioned = sum(getattr(self, f"coco_{part}_images") for part in ("train", "restval", "val", "test"))
        if self.vg_coco_images > captioned:
            raise ValueError(f"vg_coco_images: COCO has only {captioned} images with captions")
        if self.vg_flickr_images > self.flickr_val_images + self.flickr_test_images:
            raise ValueError("vg_flickr_images: more than flickr_val_images + flickr_test_images")
        if self.vg_coco_images + self.vg_flickr_images > self.vg_images:
            raise ValueError("vg_images: fewer than vg_coco_images + vg_flickr_images")

    def backbones(self) -> dict[int, str]:
        """By the side of its images, the file of each backbone: what ImageNet's weights are to the real data."""
        sides = self.backbone_sides if self.backbone_updates else []
        return {side: f"resnet18{'' if side == BACKBONE_SIDE else f'_{side}'}.safetensors" for side in sides}
