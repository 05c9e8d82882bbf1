import { describe, expect, it } from 'vitest';
import { drawOutput } from '../src/outputs';
import { safeHtml } from '../src/safehtml';
import { NotingHost } from './pages';

function shown(html: string): string {
  const page = document.createElement('div');
  page.append(safeHtml(html));
  return page.innerHTML;
}

describe('HTML of a tool', () => {
  it('keeps a table and its spans', () => {
    expect(
      shown('<table class="df"><tr><th colspan="2" style="x">a</th></tr><tr><td>1</td></tr></table>')
    ).toBe('<table><tbody><tr><th colspan="2">a</th></tr><tr><td>1</td></tr></tbody></table>');
  });

  it.each([
    ['<script>alert(1)</script>', ''],
    ['<img src="https://example.org/x.png" onerror="alert(1)">', ''],
    ['<svg><script>alert(1)</script><a xlink:href="javascript:x">x</a></svg>', ''],
    ['<math><mtext><img src=x onerror=alert(1)></mtext></math>', ''],
    ['<iframe srcdoc="<script>alert(1)</script>"></iframe>', ''],
    ['<style>@import "https://example.org";</style>', ''],
    ['<div onclick="alert(1)" style="background:url(https://example.org)">x</div>', '<div>x</div>'],
    ['<a href="javascript:alert(1)">x</a>', 'x'],
    ['<form action="https://example.org"><button>x</button></form>', 'x'],
    ['<td colspan="2 onload">x</td>', 'x'],
    ['<template><script>alert(1)</script></template>', '']
  ])('drops what could run or fetch in %s', (html, kept) => {
    expect(shown(html)).toBe(kept);
  });
});

describe('an output', () => {
  const draw = (bundle: Record<string, unknown>) => drawOutput(bundle, new NotingHost()).outerHTML;

  it.each([
    [{ 'image/png': 'aGk=', 'text/plain': 'a plot' }, 'src="data:image/png;base64,aGk=" alt="a plot"'],
    [{ 'text/plain': '<b>' }, '&lt;b&gt;'],
    [{ 'text/plain': ['a', 'b'] }, 'ab'],
    [{ 'text/plain': '\u001b[31mred\u001b[0m' }, '>red<'],
    [{ 'application/json': { a: 1 } }, '"a": 1'],
    [{ 'text/markdown': '**b**' }, '<strong>b</strong>'],
    [{ 'application/x-unknown': 1 }, 'application/x-unknown']
  ])('shows %o', (bundle, part) => {
    expect(draw(bundle)).toContain(part);
  });

  it.each([
    [{ 'image/png': 'https://example.org/x.png"' }],
    [{ 'image/png': '" onerror="alert(1)' }],
    [{ 'application/javascript': 'alert(1)' }]
  ])('makes nothing that runs or fetches of %o', bundle => {
    const page = document.createElement('div');
    page.append(drawOutput(bundle, new NotingHost()));
    expect(page.querySelector('img, script')).toBeNull();
  });

  it('shows SVG only as a picture, in which scripts do not run', () => {
    const image = drawOutput({ 'image/svg+xml': '<svg onload="alert(1)"/>' }, new NotingHost());
    expect(image.tagName).toBe('IMG');
    expect(image.getAttribute('src')).toMatch(/^data:image\/svg\+xml,%3Csvg/);
  });
});
