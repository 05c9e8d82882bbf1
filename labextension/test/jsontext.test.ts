import { describe, expect, it } from 'vitest';
import { jsonLines, jsonSummary } from '../src/jsontext';
import { TranscriptView } from '../src/view';
import { english, NotingHost, said, transcript } from './pages';

const RECIPE =
  '{"title": "Pancakes", "ingredients": ["flour", "eggs"], "steps": [{"text": "Mix {all}."}, {}]}';

describe('a text that is JSON', () => {
  it('is laid out as the static view lays it out', () => {
    expect(jsonLines(RECIPE)).toBe(
      '{\n  "title": "Pancakes",\n  "ingredients": ["flour", "eggs"],\n  "steps": [\n    {\n' +
        '      "text": "Mix {all}."\n    },\n    {}\n  ]\n}'
    );
    expect(jsonLines('{"a": 1.50, "a": 1e400}')).toBe('{\n  "a": 1.50,\n  "a": 1e400\n}');
    expect(JSON.parse(jsonLines(RECIPE)!)).toEqual(JSON.parse(RECIPE));
  });

  it('is told from prose', () => {
    for (const prose of ['Pancakes.', '[a link](https://example.org)', '{"a": 1} is the answer', '{x}', '']) {
      expect(jsonLines(prose)).toBeNull();
    }
  });

  it('is known from its beginning on', () => {
    for (let n = 2; n < RECIPE.length; n++) {
      expect(jsonLines(RECIPE.slice(0, n))).not.toBeNull();
    }
    expect(jsonSummary(RECIPE.slice(0, 20), english)).toBe('JSON');
    expect(jsonSummary(RECIPE, english)).toBe('JSON, 3 members');
    expect(jsonSummary('[7]', english)).toBe('JSON, 1 item');
  });

  it('is a code block that folds, and prose again when it turns out to be prose', () => {
    const view = new TranscriptView(new NotingHost());
    view.update(transcript([said('{"a": 1}')]), true);
    const fold = view.node.querySelector('details.llm-Json')!;
    expect(fold.querySelector('summary')!.textContent).toBe('JSON, 1 member');
    expect(fold.querySelector('pre')!.textContent).toContain('"a": 1');
    view.update(transcript([said('{"a": 1} is **it**')]), true);
    expect(view.node.querySelector('details.llm-Json')).toBeNull();
    expect(view.node.querySelector('strong')!.textContent).toBe('it');
  });
});
