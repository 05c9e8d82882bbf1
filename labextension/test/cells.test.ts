import { pythonLanguage } from '@codemirror/lang-python';
import { describe, expect, it } from 'vitest';
import { cardText, memoryOf, readGauge, readGpus, spokenText } from '../src/gauge';
import {
  headerTool,
  nameError,
  parametersError,
  storedTool,
  toolName,
  withHeader
} from '../src/toolmetadata';
import { english } from './pages';

describe('a cell', () => {
  it.each([
    ['%%tool plot(city: str)\nplot(city)', {}, 'plot'],
    ['# %tool plot(city: str)\nplot(city)', {}, 'plot'],
    ['plot(city)', { llm_magics: { tool: { name: 'plot' } } }, 'plot'],
    ['plot(city)', { tags: ['tool:plot'] }, 'plot'],
    ['plot(city)', { tags: ['tool'] }, 'tool'],
    ['plot(city)', { tags: ['toolbox'] }, ''],
    ['plot(city)  # %tool no', {}, ''],
    ['plot(city)', { tags: 'tool', llm_magics: { tool: 'x' } }, '']
  ])('%j with metadata %j is the tool %j', (source, metadata, name) => {
    expect(toolName(source, metadata)).toBe(name);
  });

  it('keeps what the form wrote', () => {
    expect(storedTool({ llm_magics: { tool: { name: 'f', parameters: 'x: int' } } })).toEqual({
      name: 'f',
      description: '',
      parameters: 'x: int',
      approve: 'ask'
    });
  });

  it.each([
    [
      '%%tool plot(city: str = ")", n: int = (3))  -> dict --timeout 5',
      'city: str = ")", n: int = (3)',
      'ask'
    ],
    ['# %tool plot --approve auto', '', 'auto'],
    ['%%tool plot(x: dict[str, int]) --approve=deny', 'x: dict[str, int]', 'deny'],
    ['%%tool plot(x: int', 'x: int', 'ask']
  ])('says by %j what it is as a tool', (line, parameters, approve) => {
    const told = headerTool(`${line}\n# Plot\n#  the rain.\nplot(x)`);
    expect(told).toEqual({ name: 'plot', description: 'Plot\n the rain.', parameters, approve });
  });

  const FORM = { name: 'plot', description: 'Plot it.', parameters: 'x: int', approve: 'ask' } as const;

  it.each([
    ['%%tool plot(x: int)\n# Plot it.\n\nplot(x)', FORM, '%%tool plot(x: int)\n# Plot it.\n\nplot(x)'],
    [
      '%%tool old(y) -> dict --timeout 5\nplot(x)',
      { ...FORM, approve: 'auto' },
      '%%tool plot(x: int) -> dict --timeout 5 --approve auto\n# Plot it.\nplot(x)'
    ],
    [
      '# %tool old --approve auto --scratch\n# Old\n# words\nplot(x)',
      FORM,
      '# %tool plot(x: int) --scratch\n# Plot it.\nplot(x)'
    ],
    ['%%tool old\n# Old\nplot(x)', { ...FORM, description: '' }, '%%tool plot(x: int)\nplot(x)'],
    ['%%tool old(y)\n# Plot it.\nplot(x)', { ...FORM, name: '' }, '# Plot it.\nplot(x)']
  ] as const)('%j becomes what the form says', (source, tool, expected) => {
    expect(withHeader(source, tool)).toBe(expected);
    if (tool.name) {
      expect(headerTool(expected)).toEqual(tool);
    }
  });

  it.each([
    ['', true],
    ['city: str, days: int = 3', true],
    ['x: Literal["a", ")"] = "a"', true],
    ['x: list[int] = [1, 2], *, y=None', true],
    ['city str', false],
    ['city: str)', false],
    ['a): pass; print(b', false],
    ['x: int =', false],
    ['3', false],
    ['x # y', false]
  ])('has the parameters %j: %s', (parameters, valid) => {
    expect(parametersError(parameters, pythonLanguage.parser, english) === '').toBe(valid);
  });

  it.each(['plot it', '1plot', 'plot(', 'plöt'])('cannot be a tool called %s', name => {
    expect(nameError(name, english)).toContain(name);
  });
});

describe('the model card', () => {
  it('says what is known, and nothing else', () => {
    const whole = readGauge({
      name: 'qwen',
      context_used: 812,
      context_size: 4096,
      tokens_per_second: 43.2,
      memory: { host: 412e6, CUDA0: 1.5e9, CUDA1: 0.5e9, bad: 'x' }
    });
    expect(cardText(whole, [], english)).toBe('qwen · 812/4,096 · 43 tok/s · GPU 2.0 GB · host 412 MB');
    expect(memoryOf(whole)).toEqual({ host: 412e6, gpu: 2e9 });
    expect(spokenText(whole, [], english)).toContain('812 of 4,096 tokens of context used');
    expect(spokenText(whole, [], english)).toContain('500 MB on CUDA1');
    expect(cardText(readGauge(null), [], english)).toBe('');
  });

  it('tells how the GPUs fare, where a model is on one', () => {
    const gpus = readGpus([
      { name: 'A', used: 40e9, total: 141e9, busy: 12 },
      { name: 'B', used: 0, total: 24e9, busy: 63 },
      { name: 'C', used: 1, total: 'much', busy: 'very' }
    ]);
    const onGpu = readGauge({ name: 'qwen', memory: { CUDA0: 1.5e9, host: 412e6 } });
    expect(cardText(onGpu, gpus, english)).toBe('qwen · GPU 1.5 GB, 63 % busy · host 412 MB');
    expect(spokenText(onGpu, gpus, english)).toContain('A: 40.0 GB of 141.0 GB in use, 12 % busy');
    expect(cardText(onGpu, readGpus([{ name: 'MIG' }]), english)).toBe('qwen · GPU 1.5 GB · host 412 MB');
    expect(readGpus('none')).toEqual([]);
    expect(cardText(readGauge({ name: 'qwen', memory: { host: 412e6 } }), gpus, english)).toBe(
      'qwen · host 412 MB'
    );
  });
});
