"""Style sheet of the report: phone and desk, light and dark, paper."""

CSS = """
:root{color-scheme:light dark;--paper:#fbfbfa;--card:#fff;--ink:#1c1e21;--soft:#5d646d;
--rule:#dfe2e6;--s0:#1f6fb5;--s1:#c2571a;--s2:#3c8a4b;--s3:#8659b5;--s4:#8a7414;--s5:#12868a}
@media(prefers-color-scheme:dark){:root{--paper:#15171a;--card:#1d2024;--ink:#e6e8ea;
--soft:#a0a7b0;--rule:#353a41;--s0:#6db3f2;--s1:#f0986a;--s2:#7fcb8e;--s3:#c3a2ea;--s4:#d9c25a;--s5:#5fd0d4}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0 1rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2rem 0 .6rem}
h3{font-size:1rem;margin:0}
p{margin:.2rem 0 .8rem;color:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:.6rem;margin:0}
.facts div{background:var(--card);border:1px solid var(--rule);border-radius:8px;
padding:.5rem .8rem;flex:1 1 7.5rem}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
.charts{display:grid;gap:.8rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}
.charts .card{max-width:560px}
figure{margin:0}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;
padding:.7rem .7rem .3rem}
figcaption{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline;
margin-bottom:.3rem}
figcaption h3{margin-right:auto}
.key{color:var(--soft);font-size:.9rem}
.key b{color:var(--c);font-variant-numeric:tabular-nums}
.note{color:var(--s1);font-size:.85rem}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--rule);stroke-width:1}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}
.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.spread{stroke:var(--c);stroke-width:1.2;opacity:.55}
.line{fill:none;stroke:var(--c,var(--ink));stroke-width:1.8;stroke-linejoin:round}
circle{fill:var(--c,var(--ink))}
.scroll{overflow-x:auto}
table{border-collapse:collapse}
th,td{text-align:left;padding:.4rem .9rem .4rem 0;border-bottom:1px solid var(--rule);
vertical-align:top;font-variant-numeric:tabular-nums}
th{font-weight:500}
thead th{color:var(--soft);font-size:.9rem}
.scores{min-width:min(100%,34rem)}
.scores td{min-width:6.5rem}
.numbers td,.numbers tbody th{white-space:nowrap}
.own,.own th{font-weight:700}
.bar{display:block;height:4px;margin-top:.2rem;background:var(--rule);border-radius:2px}
.bar i{display:block;height:100%;background:var(--soft);border-radius:2px}
.own .bar i{background:var(--s0)}
.config{font-size:.9rem;width:100%}
.config td{overflow-wrap:anywhere}
.config th{color:var(--soft);white-space:nowrap}
img{display:block;max-width:100%;height:auto;margin:.5rem 0;border-radius:8px;
border:1px solid var(--rule)}
.plots{display:flex;flex-wrap:wrap;gap:0 .8rem;align-items:flex-start}
.plots figure{max-width:100%}
details{margin:.6rem 0}
summary{cursor:pointer;padding:.4rem 0;color:var(--s0)}
footer{margin:2.5rem 0 1rem;color:var(--soft);font-size:.85rem}
@media print{main{max-width:none}.card,figure,tr{break-inside:avoid}}
"""
