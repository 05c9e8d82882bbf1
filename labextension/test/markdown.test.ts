import { describe, expect, it, vi } from 'vitest';
import { blocks } from '../src/markdown';
import { MarkdownView } from '../src/markdownview';
import { english, EXAMPLE, NotingHost } from './pages';

const html = (source: string) =>
  blocks(source, english)
    .map(block => block.html)
    .join('');

function shown(chunks: string[]): string {
  const view = new MarkdownView(new NotingHost());
  let text = '';
  for (const chunk of chunks) {
    text += chunk;
    view.update(text, false);
  }
  view.update(text, true);
  return view.node.innerHTML;
}

describe('markdown', () => {
  it.each([
    ['[x](javascript:alert(1))'],
    ['[x](JaVaScRiPt:alert(1))'],
    ['[x](&#106;avascript:alert(1))'],
    ['[x](vbscript:x)'],
    ['[x](data:text/html;base64,PHNjcmlwdD4=)'],
    ['<javascript:alert(1)>'],
    ['<script>alert(1)</script>'],
    ['<img src=x onerror=alert(1)>'],
    ['<svg onload=alert(1)>'],
    ['![x](https://example.org/x.png)'],
    ['![x" onerror="alert(1)](https://example.org/"onerror="alert(1))'],
    ['$<img src=x onerror=alert(1)>$'],
    ['```"><script>alert(1)</script>\nx\n```']
  ])('draws nothing that runs or fetches of %s', source => {
    const page = document.createElement('div');
    page.innerHTML = shown([source]);
    expect(page.querySelector('script, img, svg, iframe, object, embed, style, link, form')).toBeNull();
    for (const element of page.querySelectorAll('*')) {
      expect([...element.attributes].filter(a => a.name.startsWith('on'))).toEqual([]);
      expect(element.getAttribute('href') ?? 'https:').toMatch(/^(https?|mailto):/);
    }
  });

  it('opens links apart from this page', () => {
    expect(html('[x](https://example.org)')).toContain('target="_blank" rel="noopener noreferrer nofollow"');
  });

  it.each([
    ['$x$', '$x$'],
    ['a \\(x_1\\) b', '\\(x_1\\)'],
    ['$$\na\n\nb\n$$', '$$\na\n\nb\n$$'],
    ['\\[a_b_c\\]', '\\[a_b_c\\]']
  ])('leaves the maths in %s to the typesetter', (source, maths) => {
    const page = document.createElement('div');
    page.innerHTML = html(source);
    expect(page.querySelector('.llm-Math')?.textContent).toBe(maths);
  });

  it.each([
    'It costs $5 and $6.',
    'from $ to $',
    'echo $HOME',
    'Buy at $5 a piece and sell at 10$ each.',
    'between $5-$10 and 20$',
    'US$5 or A$7'
  ])('does not take %s for maths', source => {
    expect(html(source)).not.toContain('llm-Math');
  });
});

describe('beyond CommonMark', () => {
  const page = (source: string) => {
    const node = document.createElement('div');
    node.innerHTML = shown([source]);
    return node;
  };

  it('prices beside a formula are no formula for the typesetter', () => {
    const host = new NotingHost();
    new MarkdownView(host).update('It costs $5 and $10, or $x^2$ and $y$.', true);
    expect(host.noted).toEqual(['typeset $x^2$', 'typeset $y$']);
  });

  it.each(['$2x$', '$5$', '$3 \\pi$', '$10^6$', '$2 + x$'])('%s is a formula', source => {
    expect(page(source).querySelector('.llm-Math')?.textContent).toBe(source);
  });

  it('a task list has its boxes', () => {
    const node = page('- [x] **done** so\n- [ ] open\n- [y] text\n\n[ ] no item');
    const tasks = [...node.querySelectorAll('.llm-Task')];
    expect(tasks.map(task => [task.textContent, task.getAttribute('aria-label')])).toEqual([
      ['☑', 'done'],
      ['☐', 'not done']
    ]);
    expect([...node.querySelectorAll('li')].map(item => item.textContent)).toEqual([
      '☑ done so',
      '☐ open',
      '[y] text'
    ]);
    expect(node.textContent).toContain('[ ] no item');
  });

  it('an item that begins with a link loses nothing', () => {
    expect(page('- [x] so\n\n[x]: https://example.org').querySelector('a')?.textContent).toBe('x');
  });

  it('notes stand at the end, and lead nowhere on the page', () => {
    const node = page('One[^a] and two[^b].\n\n[^b]: The *second*.\n\n[^a]: The first.\n\nMore, x^[2].');
    expect([...node.querySelectorAll('sup')].map(sup => sup.textContent)).toEqual(['[1]', '[2]']);
    expect([...node.querySelectorAll('.llm-Footnotes li')].map(li => li.textContent?.trim())).toEqual([
      'The first.',
      'The second.'
    ]);
    expect(node.lastElementChild?.querySelector('.llm-Footnotes')).not.toBeNull();
    expect(node.querySelector('[id], a')).toBeNull();
    expect(node.textContent).toContain('x^[2]');
  });

  it.each([
    ['[^a]: nothing refers to it', '[^a]: nothing refers to it'],
    ['One[^a].\n\n[^a]: first\n\n[^a]: second', 'One[1].[^a]: firstsecond'],
    ['`[^a]`\n\n[^a]: a note', '[^a][^a]: a note'],
    ['[^a]:\n\n    - item', '[^a]: item']
  ])('what is no note stays as text: %j', (source, text) => {
    expect(page(source).textContent?.replace(/\n/g, '')).toBe(text);
  });

  it('a note that streams comes out as if it had come at once', () => {
    const source = 'One[^a].\n\n[^a]: The first.\n\nMore that grows.\n\n- a\n- b\n\nEnd[^a].';
    const whole = shown([source]);
    for (const size of [1, 2, 5, 9]) {
      expect(shown(source.match(new RegExp(`[^]{1,${size}}`, 'g'))!)).toBe(whole);
    }
  });

  it.each(['سلام', '# سلام', '- سلام\n- x', '> سلام', '|سلام|\n|-|\n|x|'])(
    '%j runs in its own direction',
    source => {
      const node = page(source);
      expect(node.querySelectorAll('[dir=auto]')).toHaveLength(1);
      expect(node.querySelector('.llm-Block [dir=auto]')?.textContent).toContain('سلام');
    }
  );
});

describe('an answer that streams', () => {
  const whole = shown([EXAMPLE]);

  it.each([1, 2, 3, 7, 50])('comes out the same in chunks of %i characters', size => {
    expect(shown(EXAMPLE.match(new RegExp(`[^]{1,${size}}`, 'g'))!)).toBe(whole);
  });

  it('leaves the blocks above its end alone', () => {
    const view = new MarkdownView(new NotingHost());
    view.update('one\n\ntwo\n\nthr', false);
    const [one, two, three] = [...view.node.children];
    view.update('one\n\ntwo\n\nthree', false);
    expect([...view.node.children].slice(0, 2)).toEqual([one, two]);
    expect(three.textContent?.trim()).toBe('three');
    expect(view.node.children).toHaveLength(3);
  });

  it('appends to a code block in place, and colours it when it is complete', async () => {
    const host = new NotingHost();
    const view = new MarkdownView(host);
    view.update('```python\na = 1', false);
    const code = view.node.querySelector('code')!;
    view.update('```python\na = 1\nb = 2', false);
    expect(view.node.querySelector('code')).toBe(code);
    expect(host.noted).toEqual([]);
    view.update('```python\na = 1\nb = 2\n```\n\nSo', false);
    expect(host.noted).toEqual(['highlight python']);
    await Promise.resolve();
    expect(view.node.querySelector('.coloured')?.textContent).toBe('a = 1\nb = 2\n');
  });

  it('typesets a formula once, when its block is complete', () => {
    const host = new NotingHost();
    const view = new MarkdownView(host);
    ['$x', '$x$', '$x$ so', '$x$ so\n\nand', '$x$ so\n\nand on'].forEach(text => view.update(text, false));
    expect(host.noted).toEqual(['typeset $x$']);
  });

  it('gives a text that was rewritten anew', () => {
    const view = new MarkdownView(new NotingHost());
    view.update('one\n\ntwo\n\nthree', false);
    view.update('other', true);
    expect(view.node.textContent?.trim()).toBe('other');
  });
});

describe('a long block', () => {
  const lines = (line: (at: number) => string) => (n: number) =>
    Array.from({ length: n }, (_, at) => line(at)).join('\n');

  it.each([
    ['list', 'li', '', lines(at => `- item ${at}, **bold**\n  - and in it ${at}`)],
    ['loose list', 'li', '', lines(at => `${at + 1}. item ${at}\n`)],
    ['table', 'tr', '| a | b |\n|---|---|\n', lines(at => `| cell ${at} | **bold** |`)],
    ['paragraph', 'strong', '', lines(at => `word ${at} **bold**`)]
  ])('%s keeps its %s while it grows', (_name, tag, head, items) => {
    const view = new MarkdownView(new NotingHost());
    view.update(head + items(50), false);
    const before = [...view.node.querySelectorAll(tag)].slice(0, 45);
    const text = head + items(60);
    for (let end = (head + items(50)).length; end < text.length; end += 7) {
      view.update(text.slice(0, end), false);
      const whole = new MarkdownView(new NotingHost());
      whole.update(text.slice(0, end), false);
      expect(view.node.innerHTML).toBe(whole.node.innerHTML);
    }
    const after = view.node.querySelectorAll(tag);
    expect(before.every((element, at) => element === after[at])).toBe(true);
  });
});

describe('a code block', () => {
  it('is copied and inserted as it was written', () => {
    const host = new NotingHost();
    const view = new MarkdownView(host);
    view.update('```js\nlet a;\n```', true);
    view.node.querySelectorAll('button').forEach(button => button.click());
    expect(host.noted.slice(1)).toEqual(['copy let a;\n', 'insert let a;\n']);
  });

  it('says for a while that it was copied', () => {
    vi.useFakeTimers();
    const view = new MarkdownView(new NotingHost());
    view.update('```js\nlet a;\n```', true);
    const copy = view.node.querySelector('button')!;
    copy.click();
    expect(copy.textContent).toBe('Copied');
    vi.runAllTimers();
    expect(copy.textContent).toBe('Copy');
    vi.useRealTimers();
  });
});
