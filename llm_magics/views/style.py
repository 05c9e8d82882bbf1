"""The style of a transcript's static HTML: JupyterLab's CSS variables, or colours that fit both themes.

CSS ignores the comment signs; they hide the rules if a host removes the style tags. Code has Pygments' classes with ``lm-``.
"""

STYLE = """<style><!--
.llm-magics{font-size:var(--jp-content-font-size1,14px);line-height:1.5;max-width:62em}
.llm-magics details{border-left:3px solid var(--jp-border-color2,#8886);margin:.4em 0;padding:.1em .7em}
.llm-magics summary{cursor:pointer;color:var(--jp-content-font-color2,inherit)}
.llm-magics pre{background:var(--jp-cell-editor-background,#8881);color:inherit;padding:.5em .7em;overflow:auto;
max-height:30em;white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;border-radius:3px;margin:.4em 0}
body[data-jp-theme-light=true] .llm-magics{--jp-mirror-editor-comment-color:#327070;--jp-mirror-editor-number-color:#007500}
body[data-jp-theme-light=false] .llm-magics{--jp-mirror-editor-comment-color:#6fb3b3;--jp-mirror-editor-def-color:#5aa9f0}
body[data-jp-theme-light=false] .llm-magics{--jp-mirror-editor-operator-color:#d48fff}
.llm-magics pre code{background:none;color:inherit;padding:0}
.llm-magics code,.llm-magics pre{font-family:var(--jp-code-font-family,monospace);font-size:.93em}
.llm-magics table{border-collapse:collapse;margin:.4em 0;font-size:inherit}
.llm-magics th,.llm-magics td{border:1px solid var(--jp-border-color2,#8886);padding:.2em .6em}
.llm-magics :is(th,td):not([style*=align]){text-align:left;vertical-align:top}
.llm-magics .lm-preview td:last-child{width:100%}
.llm-magics .lm-preview :is(th,td):first-child{white-space:nowrap}
.llm-magics .lm-short{white-space:nowrap}
.llm-magics .lm-preview pre{background:none;padding:0;margin:0;max-height:none;overflow-wrap:break-word}
.llm-magics .lm-card :is(th,td){border:0;padding:0 1.2em 0 0;text-align:left;font-weight:normal}
.llm-magics .lm-card th{color:var(--jp-content-font-color2,#777)}
.llm-magics blockquote{border-left:3px solid var(--jp-border-color2,#8886);margin:.4em 0;padding-left:.8em}
.llm-magics a{color:var(--jp-content-link-color,#4a80d8)}
.llm-magics img{max-width:100%}
.llm-magics [dir=auto]{text-align:start}
.llm-magics pre,.llm-magics code{direction:ltr;unicode-bidi:isolate}
.llm-magics pre{text-align:left}
.llm-magics .lm-item{list-style:none}
.llm-magics .lm-task{margin-inline-start:-1.4em}
.llm-magics .lm-footnotes{border-top:1px solid var(--jp-border-color2,#8886);font-size:.93em}
.llm-magics .lm-notrun,.llm-magics .lm-notrun>summary{color:var(--jp-content-font-color2,#777);font-size:.93em}
.llm-magics .lm-json>summary{color:var(--jp-content-font-color2,#777);font-size:.93em}
.llm-magics .lm-prose{color:var(--jp-content-font-color2,inherit)}
.llm-magics .lm-status,.llm-magics .lm-notice{color:var(--jp-content-font-color2,#777);font-size:.86em}
.llm-magics .lm-status{margin-top:.4em}
.llm-magics.lm-wide{max-width:none}
.llm-magics .lm-columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19em,100%),1fr));gap:.4em 1.4em}
.llm-magics .lm-column{min-width:0;border-top:2px solid var(--jp-border-color2,#8886);padding-top:.2em}
.llm-magics .lm-differs{text-decoration:none;background:#ff990050;border-radius:2px}
.llm-magics .lm-refused>summary{color:var(--jp-warn-color0,#b35900)}
.llm-magics .lm-notrun .lm-refused>summary{color:inherit}
.llm-magics .lm-warning{color:var(--jp-warn-color0,#b35900)}
.llm-magics .lm-error,.llm-magics .lm-failed>summary{color:var(--jp-error-color0,#c33)}
.llm-magics [class^=lm-k],.llm-magics .lm-ow{color:var(--jp-mirror-editor-keyword-color,#1a8754)}
.llm-magics [class^=lm-s]:is(span){color:var(--jp-mirror-editor-string-color,#c0504d)}
.llm-magics [class^=lm-c]:is(span){color:var(--jp-mirror-editor-comment-color,#6a8787);font-style:italic}
.llm-magics [class^=lm-m]:is(span){color:var(--jp-mirror-editor-number-color,#3a8f3a)}
.llm-magics .lm-nb,.llm-magics .lm-bp{color:var(--jp-mirror-editor-builtin-color,#3a8f3a)}
.llm-magics .lm-nf,.llm-magics .lm-nc,.llm-magics .lm-nd{color:var(--jp-mirror-editor-def-color,#4a6fe0)}
.llm-magics .lm-o{color:var(--jp-mirror-editor-operator-color,#a050e0)}
--></style>
"""
