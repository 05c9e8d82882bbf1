import { readdirSync, readFileSync } from 'node:fs';
import { Gettext, ITranslator, type TranslationBundle } from '@jupyterlab/translation';
import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => {
  // jsdom has none of these, and JupyterLab's widgets want them
  (globalThis as any).DragEvent ??= class extends MouseEvent {};
  (globalThis as any).IntersectionObserver ??= class {};
  (globalThis as any).ResizeObserver ??= class {};
  window.matchMedia ??= () => ({ matches: false, addEventListener: () => undefined }) as any;
});

import { notRunLine } from '../src/folding';
import extension from '../src/index';
import { cells, DRAWN } from './greek';
import { call } from './pages';

/** Puts ⟦ and ⟧ around what it is asked to translate, but not around what is put in: `⟦Answer of ⟧μ`. */
class Marking {
  readonly asked = new Set<string>();

  __(text: string, ...args: unknown[]): string {
    this.asked.add(text);
    return text
      .split(/(%\d)/)
      .map(piece => (/^%\d$/.test(piece) ? String(args[Number(piece[1]) - 1]) : piece && `⟦${piece}⟧`))
      .join('');
  }

  _n(one: string, many: string, n: number, ...args: unknown[]): string {
    this.asked.add(one);
    return this.__(n === 1 ? one : many, n, ...args);
  }
}

const SPOKEN = ['aria-label', 'title', 'alt', 'placeholder'];

/** The Latin words on the page, and those that a screen reader speaks, that no translator was asked about. */
function unmarked(drawn: Element | string): string[] {
  const found = typeof drawn === 'string' ? [drawn] : [];
  if (drawn instanceof Element) {
    const texts = document.createTreeWalker(drawn, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      found.push(texts.currentNode.textContent!);
    }
    for (const element of [drawn, ...drawn.querySelectorAll('*')]) {
      found.push(...SPOKEN.map(name => element.getAttribute(name) ?? ''));
    }
  }
  return found.map(text => text.replace(/⟦[^⟦⟧]*⟧/g, '')).filter(text => /[a-z]/i.test(text));
}

/** Not words of ours: code, what the kernel says to the model, and the labels of JupyterLab's own buttons. */
const LINES = ['%load_ext llm_magics', '%llm', 'Λ%llm'];
const FOREIGN = [
  ...LINES,
  'nobody could be asked',
  'json',
  '%%chat',
  'plot_rain',
  'city: str, days: int = 3',
  'Cancel',
  'Ok'
];

describe('every word of ours', () => {
  it.each(Object.entries(DRAWN))('goes through the translator: %s', async (_, draw) => {
    const marking = new Marking();
    const drawn = [await draw(marking as unknown as TranslationBundle)].flat();
    expect(marking.asked.size).toBeGreaterThan(0);
    expect(drawn.flatMap(unmarked).filter(text => !FOREIGN.includes(text))).toEqual([]);
  });

  it('in the source is drawn here', async () => {
    const sources = readdirSync('src').map(name => readFileSync(`src/${name}`, 'utf8'));
    const written = sources.flatMap(text => [...text.matchAll(/\.(?:__|_n)\(\s*'((?:[^'\\]|\\.)*)'/g)]);
    const marking = new Marking();
    for (const draw of Object.values(DRAWN)) {
      await draw(marking as unknown as TranslationBundle);
    }
    expect(written.length).toBeGreaterThan(0);
    expect(written.map(([, text]) => text).filter(text => !marking.asked.has(text))).toEqual([]);
    expect(sources.join('').match(/\.(__|_n)\(\s*[^'\s]/g)).toBeNull(); // a variable is found by no collector of words
  });

  it('is asked for by one name: in the code, and for the settings', async () => {
    const domains: string[] = [];
    await cells(domain => {
      domains.push(domain);
      return new Marking() as unknown as TranslationBundle;
    });
    for (const name of ['settings', 'cells']) {
      const schema = JSON.parse(readFileSync(`schema/${name}.json`, 'utf8'));
      domains.push(schema['jupyter.lab.internationalization'].domain);
    }
    expect(domains).toEqual(['llm_magics', 'llm_magics', 'llm_magics']);
    const translated = extension.filter(({ optional }) => optional?.includes(ITranslator));
    expect(translated.map(({ id }) => id)).toEqual([
      'llm-magics:transcripts',
      'llm-magics:cells',
      'llm-magics:errors',
      'llm-magics:model-card'
    ]);
  });
});

it('A language with several plurals has them', () => {
  const polish = new Gettext({ locale: 'pl', domain: 'llm_magics' });
  const messages: any = {
    '': {
      language: 'pl',
      domain: 'llm_magics',
      pluralForms: 'nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);'
    },
    '%1 call, not run': ['%1 wywołanie pominięte', '%1 wywołania pominięte', '%1 wywołań pominiętych']
  };
  polish.loadJSON(messages, 'llm_magics');
  const line = (n: number) =>
    notRunLine(
      { type: 'not run', calls: Array(n).fill(call()), repeated: false },
      polish as TranslationBundle
    );
  expect([1, 2, 5].map(line)).toEqual([
    '1 wywołanie pominięte',
    '2 wywołania pominięte',
    '5 wywołań pominiętych'
  ]);
});
