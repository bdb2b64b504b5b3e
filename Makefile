# Two commands on a fresh machine: `make quickstart`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
SEED ?= 0
# Processes that test (0: this one alone); each takes 2 GB at times.
WORKERS ?= 0
NAME := synthetic$(if $(filter-out 0,$(SEED)),_seed$(SEED))
DATA ?= data/$(NAME)
WORK_DIR ?= work_dirs/clip_vg_$(NAME)
STAMP := $(VENV)/.installed
BEGUN := $(VENV).begun
WEB := $(VENV)-web
CHECKPOINT ?= $(WORK_DIR)
DEMO := data/shapes_demo work_dirs/clip_vg_tiny
TUTORIAL := data/photographs data/labelled \
	work_dirs/clip_vg_synthetic_multi_source_valley

# A folder that a target makes has a marker beside it, .made.NAME, as old as the end of
# that target. A folder that was there before has none, and one that somebody changed
# since (its ctime, which no copy can keep) loses it when a target writes there again.
marker = $$(dirname $$folder)/.made.$$(basename $$folder)
changed = [ -n "$$(find $$folder -cnewer $(marker) -print -quit)" ]
begin = @for folder in $(1); do \
	if [ ! -e $$folder ]; then mkdir -p $$(dirname $$folder) && touch $(marker); \
	elif [ -e $(marker) ] && $(changed); then rm $(marker); fi; done
end = @for folder in $(1); do if [ -e $(marker) ]; then touch $(marker); fi; done

.PHONY: help install mmcv web data quickstart tutorial demo images docs test test-slow \
	test-oldest test-browser fuzz check format clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Make .venv with everything at the pinned versions

# A killed pip leaves packages that it cannot read again, so an installation that did
# not come to its end is begun anew (what it downloaded is in pip's cache). Without its
# pyvenv.cfg, the folder's Python would install into the system's.
$(STAMP): constraints.txt setup.py
	@if [ -n "$$(ls -A $(VENV) 2>/dev/null)" ] && ! [ -f $(VENV)/pyvenv.cfg ] \
		&& ! [ -e $(BEGUN) ]; then \
		echo '$(VENV) is there and is no venv: move it, or give another VENV'; exit 1; \
	fi
	@if [ -e $(BEGUN) ] || ! [ -f $(VENV)/pyvenv.cfg ] \
		|| ! $(RUN) -m pip --version >/dev/null 2>&1; then \
		touch $(BEGUN) && rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) \
		|| { echo 'No venv: on Debian, apt-get install python3-venv'; exit 1; }; \
	fi
	@touch $(BEGUN)
	$(RUN) -m pip install -q -c constraints.txt torch torchvision 'setuptools<80.9' wheel
	$(RUN) -m pip install -q -c constraints.txt --no-build-isolation -e '.[lite,dev]'
	@rm $(BEGUN)
	@touch $@
	@echo 'Installed. To use it: source $(VENV)/bin/activate'

mmcv: install  ## Build the compiled MMCV in place of mmcv-lite (13 min on 2 cores)
	$(RUN) -m pip uninstall -q -y mmcv-lite
	$(RUN) -m pip install -q -c constraints.txt ninja psutil
	CXX="$(CURDIR)/tools/c++20" MMCV_WITH_OPS=1 $(RUN) -m pip install \
		--no-build-isolation --no-binary mmcv mmcv==2.1.0

# Gradio's own needs lie over what is installed already.
$(WEB)/.installed: constraints-web.txt $(STAMP)
	rm -rf $(WEB) && $(PYTHON) -m venv $(WEB)
	$(RUN) -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> $$(echo $(WEB)/lib/python*/site-packages)/installed.pth
	$(WEB)/bin/python -m pip install -q -c constraints-web.txt gradio playwright
	touch $@

web: $(WEB)/.installed  ## Serve a page that grounds expressions (CHECKPOINT=FILE or work dir)
	$(WEB)/bin/python demo/app.py --checkpoint $(CHECKPOINT)

data: install  ## Make the built-in toy data set
	$(call begin,$(DATA))
	$(RUN) tools/make_synthetic.py --out-dir $(DATA) --seed $(SEED)
	$(call end,$(DATA))

quickstart: data  ## Install, make data, train, test, draw results
	$(call begin,$(WORK_DIR))
	$(RUN) tools/train.py configs/clip_vg_synthetic.py --work-dir $(WORK_DIR) --resume \
		--data-root $(DATA)
	$(RUN) tools/test.py configs/clip_vg_synthetic.py $(WORK_DIR) \
		--work-dir $(WORK_DIR)/test --data-root $(DATA) \
		--cfg-options test_evaluator.out_file=$(WORK_DIR)/test/results.jsonl
	$(RUN) tools/draw_results.py $(WORK_DIR)/test/results.jsonl \
		--out $(WORK_DIR)/quickstart.png
	$(call end,$(WORK_DIR))

tutorial: install  ## Pseudo-labels and a model: docs/tutorial_without_labels.md
	$(call begin,$(TUTORIAL))
	$(RUN) tools/run_doc.py docs/tutorial_without_labels.md
	$(call end,$(TUTORIAL))

demo: data  ## Train demo/clip_vg_tiny.pth and draw demo/shapes.jpg again
	$(call begin,$(DEMO))
	$(RUN) tools/train.py configs/clip_vg_synthetic.py --work-dir work_dirs/clip_vg_tiny \
		--cfg-options train_cfg.max_epochs=24 param_scheduler.0.total_steps=24 \
		default_hooks.slim.type=SlimCheckpointHook \
		default_hooks.checkpoint.published_keys='[meta,state_dict]'
	cp work_dirs/clip_vg_tiny/best_*-????????.pth demo/clip_vg_tiny.pth
	$(RUN) tools/make_synthetic.py --out-dir data/shapes_demo \
		--seed 19 --scale 4 --train 0 --val 0 --test 6
	cp data/shapes_demo/images/shapes_000006.jpg demo/shapes.jpg
	$(call end,$(DEMO))

images: tutorial $(WEB)/.installed  ## Make the images of the documentation again
	$(WEB)/bin/python docs/images/make_images.py

docs: install  ## Build the documentation into build/docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

test: install  ## Run the tests
	$(RUN) -m pytest -m 'not slow and not browser' -n $(WORKERS) --dist loadfile

test-slow: install  ## Run the tests that take minutes
	$(RUN) -m pytest -m slow

test-oldest:  ## Test with the oldest versions that setup.py allows (6 GB for a while)
	PYTHON=$(PYTHON) .ci/oldest

test-browser: $(WEB)/.installed  ## Test the web page in Debian's Chromium
	@command -v chromium >/dev/null \
		|| { echo 'No chromium: on Debian, apt-get install chromium'; exit 1; }
	$(WEB)/bin/python -m pytest -m 'not slow' tests/browser tests/test_app.py

fuzz: install  ## Feed random pickles to the loaders, changed files to the readers
	$(RUN) tests/fuzz_unpickling.py --programs 1000000
	$(RUN) tests/fuzz_readers.py --inputs 100000

check: install  ## Lint and types, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what the targets made, and nothing else
	@if [ -e $(STAMP) ] || [ -e $(BEGUN) ]; then rm -rf $(VENV) $(BEGUN); fi
	@if [ -e $(WEB)/.installed ]; then rm -rf $(WEB); fi
	rm -rf build/docs clip_vg_mmdet.egg-info
	@rmdir build 2>/dev/null || true
	@for folder in $(sort $(wildcard $(DATA) $(WORK_DIR) data/* work_dirs/*)); do \
		if ! [ -e $(marker) ]; then echo "$$folder stays: no target made it"; \
		elif $(changed); then echo "$$folder stays: it was changed since"; \
		else echo "rm -rf $$folder"; rm -rf $$folder $(marker); fi; done
	@rmdir data work_dirs 2>/dev/null || true
