"""Everything besides the main job: each task is one module or folder, and may use the pipeline."""
