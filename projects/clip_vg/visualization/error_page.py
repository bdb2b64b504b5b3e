"""The template of the page of errors."""

__all__ = ['PAGE', 'number', 'percent', 'points']


def percent(share: float) -> str:
    """A share, to a tenth of a percent."""
    return f'{100 * share:.1f} %'


def points(difference: float) -> str:
    """A difference of shares, with its sign."""
    return f'{100 * difference:+.1f}'.replace('-', '−')


def number(value: float | None) -> str:
    """A number of three digits; small ones as such."""
    if value is None:
        return '–'
    return '< 0.001' if 0 <= value < 0.001 else f'{value:.3f}'


PAGE = """{% extends 'page' %}
{% macro interval(part) %}{{ percent(part.accuracy) }}
<small>{{ '%.1f' % (100 * part.low) }}–{{ '%.1f' % (100 * part.high) }}</small>
{%- endmacro %}
{% block body %}
<style>
  small { color: #666; font-size: .8em } h2 { margin-top: 2.2rem }
  table { font-size: .92rem } th { vertical-align: bottom }
  .beside { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start }
  .beside img { flex: 0 1 460px; min-width: 0 } .wide { overflow-x: auto }
  .beside .wide { flex: 1 1 560px; min-width: 0 }
  th.n { text-align: right; white-space: nowrap } th, td { padding: .3rem .55rem }
  td.n { white-space: nowrap } .name, h1 { overflow-wrap: anywhere }
  th.n.name { white-space: normal }
  .cards { display: grid; gap: 1rem;
           grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)) }
  .card { margin: 0; font-size: .85rem; line-height: 1.35;
          overflow-wrap: anywhere }
  .card img, .card .none { display: block; width: 100%; height: 230px;
          object-fit: contain; background: #eee; margin-bottom: .3rem }
  .card .none { display: flex; align-items: center; justify-content: center;
          color: #666; text-align: center }
  nav a { margin-right: 1rem } .hit { color: #00702f } .miss { color: #c4002b }
</style>
<nav><a href="#all">All answers</a>
{% if weak %}<a href="#weak">Where most is lost</a>{% endif %}
{% for s in sections %}<a href="#g{{ loop.index }}">{{ s.title }}</a>
{% endfor %}{% if calibration %}<a href="#score">Score</a>{% endif %}
{% for e in examples %}<a href="#e{{ loop.index }}">{{ e.title }}</a>
{% endfor %}</nav>

<p>{{ '{:,}'.format(runs[0].count) }} expressions on
{{ '{:,}'.format(picture_count) }} pictures. A hit is an answer of IoU 0.5 or more
with the true box; the accuracy is the share of hits, the small numbers are its 95 %
interval (Wilson).</p>
{% if missing %}<p><b>{{ '{:,}'.format(missing|length) }} pictures were not found or
cannot be read</b>, the first: {{ missing[0] }}. If they moved, say where to by
<code>--images</code>.</p>{% endif %}

<div class="wide"><table>
<tr><th>run</th><th class="n">accuracy</th>
{% for t in runs[0].reached %}<th class="n">IoU ≥ {{ t }}</th>{% endfor %}
<th class="n">mean IoU</th>
<th class="n">misses</th><th class="n">of them IoU 0,<br>another place</th>
<th class="n">of them IoU 0.25<br>to 0.5, a loose box</th></tr>
{% for r in runs %}
<tr><td class="name">{{ r.name }}</td><td class="n">{{ interval(r) }}</td>
{% for share in r.reached.values() %}<td class="n">{{ percent(share) }}</td>{% endfor %}
<td class="n">{{ number(r.miou) }}</td><td class="n">{{ '{:,}'.format(r.misses) }}</td>
<td class="n">{% if r.misses %}{{ percent(r.apart / r.misses) }}{% endif %}</td>
<td class="n">{% if r.misses %}{{ percent(r.loose / r.misses) }}{% endif %}</td></tr>
{% endfor %}
</table></div>

{% if paired %}
<h2>From “{{ runs[0].name }}” to “{{ runs[1].name }}”</h2>
<p>{{ points(paired.difference) }} points of accuracy. If both were equally
good, a difference at least as large had the probability {{ number(paired.p) }}
(p of the exact McNemar test).</p>
<table>
<tr><th></th><th class="n">“{{ runs[1].name }}” hits</th>
<th class="n">“{{ runs[1].name }}” misses</th></tr>
<tr><th>“{{ runs[0].name }}” hits</th>
<td class="n">{{ '{:,}'.format(paired.both) }}</td>
<td class="n">{{ '{:,}'.format(paired.lost) }} lost</td></tr>
<tr><th>“{{ runs[0].name }}” misses</th>
<td class="n">{{ '{:,}'.format(paired.gained) }} gained</td>
<td class="n">{{ '{:,}'.format(paired.neither) }}</td></tr>
</table>
{% endif %}

<h2 id="all">All answers</h2>
<img alt="Histogram of IoU, and accuracy by threshold"
 src="data:image/png;base64,{{ ious }}">

{% if weak %}
<h2 id="weak">Where most is lost</h2>
<p>Groups whose interval ends below the accuracy of all answers. Hits lost: how many
more there were, if the group were as good as all.</p>
<div class="wide"><table>
<tr>{% if paired %}<th>run</th>{% endif %}<th>by</th><th>group</th>
<th class="n">answers</th><th class="n">accuracy</th><th class="n">hits lost</th></tr>
{% for g in weak %}
<tr>{% if paired %}<td>{{ g.run }}</td>{% endif %}<td>{{ g.grouping }}</td>
<td>{{ g.group }}</td><td class="n">{{ '{:,}'.format(g.count) }}</td>
<td class="n">{{ interval(g) }}</td><td class="n">{{ '%.0f' % g.lost }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% for s in sections %}
<h2 id="g{{ loop.index }}">{{ s.title }}</h2>
{% if s.note %}<p>{{ s.note }}</p>{% endif %}
<div class="beside"><img alt="Accuracy by group: {{ s.title }}"
 src="data:image/png;base64,{{ s.image }}">
<div class="wide"><table>
<tr><th>group</th><th class="n">answers</th>
{% for r in runs %}<th class="n name">{{ r.name if paired else 'accuracy' }}</th>
{% endfor %}
{% if paired %}<th class="n">points</th><th class="n">gained</th><th class="n">lost</th>
<th class="n">p</th>{% else %}<th class="n">mean IoU</th>{% endif %}</tr>
{% for row in s.rows %}
<tr><td>{{ row.name }}</td><td class="n">{{ '{:,}'.format(row.parts[0].count) }}</td>
{% for part in row.parts %}
<td class="n">{% if paired %}{{ percent(part.accuracy) }}
{% else %}{{ interval(part) }}{% endif %}</td>{% endfor %}
{% if paired %}<td class="n">{{ points(row.paired.difference) }}</td>
<td class="n">{{ '{:,}'.format(row.paired.gained) }}</td>
<td class="n">{{ '{:,}'.format(row.paired.lost) }}</td>
<td class="n">{% if row.paired.p < 0.05 %}<b>{{ number(row.paired.p) }}</b>
{% else %}{{ number(row.paired.p) }}{% endif %}</td>
{% else %}<td class="n">{{ number(row.parts[0].miou) }}</td>{% endif %}</tr>
{% endfor %}
</table></div></div>
{% endfor %}
{% if paired %}<p>p is not corrected for the number of groups: of twenty groups without
any difference, about one is bold.</p>{% endif %}

{% if calibration %}
<h2 id="score">Score</h2>
<p>What answers reach, by the model's own score in ten bins; on the dotted line the
score is what to expect.
{% for name, found in calibration.runs.items() %}
{% if paired %}“{{ name }}”: {% endif %}Mean distance of score and IoU
{{ number(found.error) }}{% if found.auroc is not none %}; a hit scores higher than a
miss in {{ percent(found.auroc) }} of pairs{% endif %}.
{% endfor %}</p>
<img alt="Accuracy by score" src="data:image/png;base64,{{ calibration.image }}">
{% endif %}

{% for e in examples %}
<h2 id="e{{ loop.index }}">{{ e.title }}</h2>
<p>{{ e.cards|length }} of {{ '{:,}'.format(e.total) }}: {{ e.note }}. Dashed black:
the true box; <span class="hit">green</span>: a hit, <span class="miss">red</span>: a
miss{% if e.paired %}; broken line: “{{ runs[0].name }}”, solid:
“{{ runs[1].name }}”{% endif %}.</p>
<div class="cards">
{% for c in e.cards %}
<figure class="card">
{% if c.picture %}<img alt="{{ c.text }}" loading="lazy"
 src="data:image/jpeg;base64,{{ c.picture }}">
{% else %}<div class="none">picture not found,<br>or not to be read</div>{% endif %}
<b>{{ c.text }}</b><br>
{% for answer in c.answers %}
{% if e.paired %}{{ answer.name }}: {% endif %}IoU {{ '%.2f' % answer.iou }}
{%- if answer.score is not none %}, score {{ '%.2f' % answer.score }}{% endif %}<br>
{% endfor %}
<small title="{{ c.image }}">{{ c.sample_id }} · {{ c.file }}</small>
</figure>
{% endfor %}
</div>
{% endfor %}
{% endblock %}"""
