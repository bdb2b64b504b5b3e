"""Zero-shot grounding with MMDetection's RTMDet-L and CLIP ViT-B/16."""

model = dict(
    type='ZeroShotGrounding',
    # CLIP's normalisation is the scorer's own.
    data_preprocessor=dict(type='GroundingDataPreprocessor', bgr_to_rgb=True),
    clip=dict(type='CropTextCLIP', arch='ViT-B-16-quickgelu', pretrained='openai'),
    proposals=dict(
        type='DetectorProposals',
        detector='mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v3.0/rtmdet/'
        'rtmdet_l_8xb32-300e_coco/'
        'rtmdet_l_8xb32-300e_coco_20220719_112030-5a0be7c4.pth',
        min_score=0.1,
    ),
    # The mean of crop and blur, as in ReCLIP; a heat map of OpenAI's last layer, which
    # was not trained to agree with texts, is off.
    signals=dict(crop=0.5, blur=0.5, heat=0.0, category=2.0, score=0.5),
)
