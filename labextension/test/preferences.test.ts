import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Preferences } from '../src/preferences';
import { readTranscript } from '../src/transcript';
import { TranscriptView } from '../src/view';
import { call, NotingHost, transcript } from './pages';

const schema = JSON.parse(readFileSync('schema/settings.json', 'utf8'));
const reasoning = { type: 'reasoning', step: 0, text: 'hm' } as const;

function drawn(look: Record<string, unknown>, ...args: Parameters<typeof transcript>): HTMLDetailsElement {
  const host = new NotingHost();
  const preferences = new Preferences();
  preferences.set(look);
  host.look = preferences.look;
  const view = new TranscriptView(host);
  view.update(transcript(...args), false);
  return view.node.querySelector('details')!;
}

describe('preferences', () => {
  it('have the defaults that the settings editor shows', () => {
    const { rules, ...look } = Object.fromEntries(
      Object.entries<any>(schema.properties).map(([name, property]) => [name, property.default])
    );
    expect(new Preferences().look).toEqual(look);
    const preferences = new Preferences();
    expect(preferences.rules).toBeNull(); // not read yet: the kernel is told of none
    preferences.set({});
    expect(preferences.rules).toEqual(rules);
  });

  it.each([
    [{ updatesPerSecond: 5 }, 'updatesPerSecond', 5],
    [{ updatesPerSecond: 1000 }, 'updatesPerSecond', 60],
    [{ updatesPerSecond: 'often' }, 'updatesPerSecond', 30],
    [{ reasoning: 'sometimes' }, 'reasoning', 'fold'],
    [{ modelCard: false }, 'modelCard', false]
  ])('read %j', (settings, name, value) => {
    const preferences = new Preferences();
    preferences.set(settings);
    expect((preferences.look as any)[name]).toBe(value);
  });

  it('hand the rules on as they are, and say when they change', () => {
    const preferences = new Preferences();
    let changes = 0;
    preferences.changed.connect(() => changes++);
    preferences.set({ rules: { approve: 'ask' } });
    expect(preferences.rules).toEqual({ approve: 'ask' });
    preferences.set({ rules: ['ask'] });
    expect(preferences.rules).toEqual({});
    expect(changes).toBe(2);
  });

  it.each([
    ['fold', false, false],
    ['full', true, false],
    ['hide', false, true]
  ])('show reasoning as %s', (word, open, hidden) => {
    const node = drawn({ reasoning: word }, [reasoning]);
    expect([node.open, node.hidden]).toEqual([open, hidden]);
  });

  it('give way to what the cell asked for', () => {
    const asked = readTranscript({
      version: 1,
      segments: [],
      settings: { options: { show_reasoning: 'full' } }
    })!.reasoning;
    expect(drawn({ reasoning: 'hide' }, [reasoning], 'stop', { reasoning: asked }).open).toBe(true);
  });

  it('keep pictures folded where that is wanted, and never a question', () => {
    const picture = call({ outputs: [{ 'image/png': 'aGk=' }] });
    const asking = call({ state: 'asking', ask: { shown: 'f()', digest: 'd', reason: '' } });
    expect(drawn({}, [picture]).open).toBe(true);
    expect(drawn({ openPictures: false }, [picture]).open).toBe(false);
    expect(drawn({ openPictures: false }, [asking]).open).toBe(true);
  });
});
