/**
 * The saved form of one turn, as `llm_magics/transcript.py` describes it, and the deltas that change it.
 *
 * What arrives is JSON from a notebook file or a kernel: `readTranscript` checks it once, so that the views need not.
 */

import { readReasoning, type ShowReasoning } from './preferences';

export const MIME_TYPE = 'application/vnd.llm-magics.transcript+json';

export type Bundle = Record<string, unknown>;

export interface ITextSegment {
  type: 'text' | 'reasoning';
  step: number;
  text: string;
}

export interface INoticeSegment {
  type: 'notice';
  step: number;
  text: string;
  level: string;
}

export interface IToolSegment {
  type: 'tool';
  step: number;
  index: number;
  id: string;
  name: string;
  arguments: string;
  state: string;
  recovered: string;
  source: string;
  ask: { shown: string; digest: string; reason: string } | null;
  printed: string;
  outputs: Bundle[];
  result: string | null;
  is_error: boolean;
  seconds: number;
  warnings: string[];
}

export type Segment = ITextSegment | INoticeSegment | IToolSegment;

export interface ITranscript {
  turn: string;
  model: string;
  state: string;
  segments: Segment[];
  progress: { done: number; total: number } | null;
  usage: Record<string, number>;
  seconds: number;
  /** Whether the saved turn holds what a replay needs (`--record`). */
  recorded: boolean;
  /** What the cell asked for (`--show-reasoning`); null leaves it to the settings. */
  reasoning: ShowReasoning | null;
}

export type Operation =
  ['+', number, string, string] | ['=', number, Record<string, unknown>] | ['head', Record<string, unknown>];

/** The versions that are read. Version 2 says less about a turn's steps, which are not drawn, and whether it is recorded. */
const VERSIONS: unknown[] = [1, 2];

/** Read a transcript of a known version; null for anything else. Missing or mistyped fields become empty ones. */
export function readTranscript(data: unknown): ITranscript | null {
  const json = object(data);
  if (!VERSIONS.includes(json.version) || !Array.isArray(json.segments)) {
    return null;
  }
  return {
    turn: text(json.turn),
    model: text(json.model),
    state: text(json.state),
    segments: json.segments.map(readSegment),
    progress: readProgress(json.progress),
    usage: numbers(json.usage),
    seconds: number(json.seconds),
    recorded: json.recorded === true,
    reasoning: readReasoning(object(object(json.settings).options).show_reasoning)
  };
}

/**
 * Apply a delta's operations to the JSON of a transcript, in place.
 *
 * Returns the numbers of the segments that changed; throws where an operation does not fit, after which only a snapshot helps.
 */
export function applyOperations(json: Record<string, any>, operations: Operation[]): Set<number> {
  const touched = new Set<number>();
  for (const operation of operations) {
    if (operation[0] === 'head') {
      Object.assign(json, operation[1]);
      continue;
    }
    const [, at] = operation;
    if (at === json.segments.length) {
      json.segments.push({});
    }
    const segment = json.segments[at];
    if (operation[0] === '+') {
      if (typeof segment[operation[2]] !== 'string') {
        throw new Error(`Segment ${at} has no text "${operation[2]}" to append to.`);
      }
      segment[operation[2]] += operation[3];
    } else {
      Object.assign(segment, operation[2]);
    }
    touched.add(at);
  }
  return touched;
}

function readSegment(data: unknown): Segment {
  const json = object(data);
  const step = number(json.step);
  switch (json.type) {
    case 'text':
    case 'reasoning':
      return { type: json.type, step, text: text(json.text) };
    case 'tool':
      return readTool(json, step);
    default:
      return { type: 'notice', step, text: text(json.text), level: text(json.level) };
  }
}

function readTool(json: Record<string, unknown>, step: number): IToolSegment {
  const ask = json.ask ? object(json.ask) : null;
  return {
    type: 'tool',
    step,
    index: number(json.index),
    id: text(json.id),
    name: text(json.name),
    arguments: text(json.arguments),
    state: text(json.state),
    recovered: text(json.recovered),
    source: text(json.source),
    ask: ask && { shown: text(ask.shown), digest: text(ask.digest), reason: text(ask.reason) },
    printed: text(json.printed),
    outputs: Array.isArray(json.outputs) ? json.outputs.map(object) : [],
    result: typeof json.result === 'string' ? json.result : null,
    is_error: json.is_error === true,
    seconds: number(json.seconds),
    warnings: Array.isArray(json.warnings) ? json.warnings.map(text) : []
  };
}

function readProgress(data: unknown): { done: number; total: number } | null {
  const json = object(data);
  return data ? { done: number(json.done), total: number(json.total) } : null;
}

function numbers(data: unknown): Record<string, number> {
  return Object.fromEntries(Object.entries(object(data)).map(([key, value]) => [key, number(value)]));
}

function object(data: unknown): Record<string, unknown> {
  return data !== null && typeof data === 'object' && !Array.isArray(data)
    ? (data as Record<string, unknown>)
    : {};
}

function text(data: unknown): string {
  return typeof data === 'string' ? data : '';
}

function number(data: unknown): number {
  return typeof data === 'number' && Number.isFinite(data) ? data : 0;
}
