// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so are expressions written
import type { Fault } from '@cde/api/templates.ts';
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  parseAllDocuments,
  parseDocument,
  type Scalar,
  type YAMLError,
} from 'yaml';

export type Path = readonly PropertyKey[];

/** `parameters[0].default` */
export function formatPath(path: Path): string {
  return path
    .map((part, index) =>
      typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`,
    )
    .join('');
}

export interface SourceLimits {
  bytes: number;
  tokens: number;
  depth: number;
}

/** Fails a parse of more than this: at about 2 µs a token it holds the event loop for some 10 ms. */
const limits: SourceLimits = { bytes: 128 * 1024, tokens: 5000, depth: 16 };

/** A tree rather than a map by path: paths of long keys over long lists would fill the memory. */
interface SourceNode {
  key: Node | null;
  node: Node | null;
  children: Map<PropertyKey, SourceNode>;
}

/** Nobody reads more; and a file can hold thousands. */
const maxFaults = 100;
const maxKeyLength = 512;

/** A parsed YAML file that remembers where each value was written. */
export interface Source {
  /** Plain JSON. */
  value: unknown;
  /** A fault at the value at `path`, or at its nearest parent that is there. */
  fault(path: Path, message: string, hint?: string): Fault;
  /** A fault at the key of `path`. */
  faultAtKey(path: Path, message: string, hint?: string): Fault;
  /** A fault at an offset of the string at `path`, whichever way that string is written. */
  faultInside(path: Path, offset: number, message: string, hint?: string): Fault;
  /** How a scalar is written, quotes excluded; undefined where there is none. */
  written(path: Path): string | undefined;
}

/**
 * Parses YAML that may come from anybody: no aliases, no tags, no duplicate keys, bounded in size and
 * depth.
 * @returns the source unless its syntax is broken, and every fault found
 */
export function readSource(file: string, text: string): { source: Source | null; faults: Fault[] } {
  const { sources, faults } = read(file, text, limits, false);
  return { source: sources[0] ?? null, faults };
}

/**
 * Parses a YAML file of any number of documents, with the care of `readSource`. What holds no value is left out.
 * @returns the documents (none when the syntax of any is broken), every fault found, and how much was read
 */
export function readDocuments(
  file: string,
  text: string,
  bounds: SourceLimits,
): { sources: Source[]; faults: Fault[]; tokens: number } {
  return read(file, text, bounds, true);
}

function read(
  file: string,
  text: string,
  bounds: SourceLimits,
  several: boolean,
): { sources: Source[]; faults: Fault[]; tokens: number } {
  const lines = new LineCounter();
  const refuse = (message: string, hint: string) => ({
    sources: [],
    faults: [{ file, line: 1, column: 1, path: '', message, hint }],
    tokens: 0,
  });

  if (Buffer.byteLength(text) > bounds.bytes) {
    return refuse(
      `the file is larger than ${Math.floor(bounds.bytes / 1024)} KiB`,
      'a long script belongs into an image or a repository',
    );
  }
  const { excess, tokens } = measure(text, bounds);
  if (excess === 'tokens') {
    return several
      ? refuse(
          'the manifests have too many keys and values together',
          'what makes so many is better installed from the startup script, by Helm or kubectl',
        )
      : refuse('the file has too many keys and values', 'split the template into several');
  }
  const tooDeep = refuse('the file is nested too deeply', `at most ${bounds.depth} levels are allowed`);
  if (excess === 'depth') return tooDeep;
  const options = {
    lineCounter: lines,
    prettyErrors: false,
    // Quadratic in the library; the walk below finds duplicates, and tells where the first one is.
    uniqueKeys: false,
    stringKeys: true,
    schema: 'core',
  } as const;
  let documents: Pick<ReturnType<typeof parseDocument>, 'contents' | 'errors'>[];
  try {
    // The type says that there may be none; then it is an empty list all the same.
    documents = several ? [...parseAllDocuments(text, options)] : [parseDocument(text, options)];
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return tooDeep;
  }
  const locator = makeLocator(file, text, lines);
  const syntax = documents
    .flatMap(({ errors }) => errors)
    .slice(0, maxFaults)
    .map(locator.syntaxFault);
  if (syntax.length > 0) return { sources: [], faults: syntax, tokens };
  const full = several ? documents.filter(({ contents }) => !isEmpty(contents as Node | null)) : documents;
  const faults: Fault[] = [];
  const sources = full.map((document) =>
    toSource(document.contents as Node | null, text, locator, bounds, faults),
  );
  return { sources, faults, tokens };
}

/** A document of comments only, or of none. */
function isEmpty(contents: Node | null): boolean {
  return contents === null || (isScalar(contents) && contents.value === null && !contents.source);
}

type Locator = ReturnType<typeof makeLocator>;

/** Turns offsets of a file's text into faults. */
function makeLocator(file: string, text: string, lines: LineCounter) {
  return { faultAt, syntaxFault, lineOf: (offset: number) => lines.linePos(offset).line };

  function faultAt(offset: number, path: Path, message: string, hint?: string): Fault {
    const { line, col } = lines.linePos(offset);
    return {
      file,
      line: Math.max(1, line),
      column: Math.max(1, col),
      path: formatPath(path),
      message,
      hint,
    };
  }

  function syntaxFault(error: YAMLError): Fault {
    const offset = error.pos[0];
    const start = text.lastIndexOf('\n', offset - 1) + 1;
    const end = text.indexOf('\n', offset);
    const line = text.slice(start, end === -1 ? undefined : end);
    const messages: Record<string, string> = {
      MULTIPLE_DOCS: 'the file holds more than one YAML document',
      NON_STRING_KEY: 'a key is not a plain name',
      BLOCK_AS_IMPLICIT_KEY: 'a ": " stands within an unquoted value',
    };
    const hints: Record<string, string> = {
      MULTIPLE_DOCS: 'remove everything from the second "---" on',
      TAB_AS_INDENT: 'indent with spaces',
      BLOCK_AS_IMPLICIT_KEY: 'put the whole value in quotes',
    };
    const hint = line.includes('${{')
      ? 'put the whole value, with its ${{ }}, in quotes'
      : line.includes('{{')
        ? 'what Helm writes {{ .Values.x }} is ${{ parameters.x }} here'
        : hints[error.code];
    return faultAt(offset, [], `this is not YAML: ${messages[error.code] ?? error.message}`, hint);
  }
}

function toSource(
  contents: Node | null,
  text: string,
  locator: Locator,
  bounds: SourceLimits,
  faults: Fault[],
): Source {
  const { faultAt, lineOf } = locator;
  const root: SourceNode = { key: null, node: contents, children: new Map() };
  const value = toValue(root, []);
  return { value, fault, faultAtKey, faultInside, written };

  function report(offset: number, path: Path, message: string, hint?: string): void {
    if (faults.length < maxFaults) faults.push(faultAt(offset, path, message, hint));
  }

  function toValue(at: SourceNode, path: Path): unknown {
    const { node } = at;
    if (node === null) return null;
    const offset = node.range?.[0] ?? 0;
    if (isAlias(node)) {
      report(offset, path, 'YAML aliases are not allowed', `write the value of "*${node.source}" out`);
      return null;
    }
    if (node.tag !== undefined) {
      report(offset, path, `YAML tags such as "${node.tag}" are not allowed`, 'remove the tag');
    }
    if (path.length > bounds.depth) {
      report(offset, path, `nested deeper than ${bounds.depth} levels`);
      return null;
    }
    const child = (part: PropertyKey, key: Node | null, value: unknown): unknown => {
      const locator: SourceNode = { key, node: value as Node | null, children: new Map() };
      at.children.set(part, locator);
      return toValue(locator, [...path, part]);
    };
    if (isMap(node)) {
      const result: Record<string, unknown> = {};
      const first = new Map<string, number>();
      for (const pair of node.items) {
        const name = isScalar(pair.key) ? String(pair.key.value) : '';
        const keyAt = (pair.key as Node | null)?.range?.[0] ?? offset;
        const earlier = first.get(name);
        if (name === '__proto__') {
          report(keyAt, [...path, name], 'the key "__proto__" is not allowed');
        } else if (name.length > maxKeyLength) {
          report(keyAt, path, `a key is longer than ${maxKeyLength} characters`);
        } else if (earlier !== undefined) {
          report(
            keyAt,
            [...path, name],
            `the key "${name}" stands here twice`,
            `the first is on line ${lineOf(earlier)}; keep one of them`,
          );
        } else {
          first.set(name, keyAt);
          result[name] = child(name, pair.key as Node | null, pair.value);
        }
      }
      return result;
    }
    if (isSeq(node)) return node.items.map((item, index) => child(index, null, item));
    const scalar = node as Scalar;
    if (scalar.type === 'PLAIN' && typeof scalar.value === 'number') checkNumber(scalar, offset, path);
    return scalar.value;
  }

  /** Numbers that other readers of YAML take for another number, or that no program keeps exactly. */
  function checkNumber({ value, source = '' }: Scalar, offset: number, path: Path): void {
    const number = Number(value);
    if (/^[-+]?0\d/.test(source)) {
      // Octal to YAML 1.1, and so to kubectl: 0644 would become 644.
      const octal = /^([-+]?)0+([0-7]+)$/.exec(source);
      report(
        offset,
        path,
        `${source} is read as the number ${number}`,
        octal
          ? `write ${octal[1]}0o${octal[2]} for the octal number, ${number} for the decimal one, or "${source}" for a text`
          : `write ${number}, or "${source}" for a text`,
      );
    } else if (!Number.isFinite(number) || (Number.isInteger(number) && !Number.isSafeInteger(number))) {
      report(offset, path, `${source} is not a number that can be kept`, `write "${source}" for a text`);
    }
  }

  function find(path: Path): SourceNode {
    let at = root;
    for (const part of path) {
      const next = at.children.get(part);
      if (!next) break;
      at = next;
    }
    return at;
  }
  function exactly(path: Path): SourceNode | undefined {
    return path.reduce<SourceNode | undefined>((at, part) => at?.children.get(part), root);
  }
  function fault(path: Path, message: string, hint?: string): Fault {
    const { key, node } = find(path);
    // A map or an empty value is best shown by its key; its own start is a line below, or nowhere.
    const shown = (isMap(node) || isSeq(node) || (isScalar(node) && node.value === null)) && key ? key : node;
    return faultAt(shown?.range?.[0] ?? key?.range?.[0] ?? 0, path, message, hint);
  }
  function faultAtKey(path: Path, message: string, hint?: string): Fault {
    const { key, node } = find(path);
    return faultAt((key ?? node)?.range?.[0] ?? 0, path, message, hint);
  }
  function faultInside(path: Path, offset: number, message: string, hint?: string): Fault {
    const { node } = find(path);
    if (!isScalar(node) || typeof node.value !== 'string') return fault(path, message, hint);
    return faultAt(offsetInSource(text, node as Scalar<string>, offset), path, message, hint);
  }
  function written(path: Path): string | undefined {
    const node = exactly(path)?.node;
    return isScalar(node) ? (node.source ?? undefined) : undefined;
  }
}

/** Counts without building a tree, so that a hostile file costs no more than the limit. */
function measure(text: string, limits: SourceLimits): { excess: 'tokens' | 'depth' | null; tokens: number } {
  let tokens = 0;
  let flow = 0;
  let dashes = 0;
  for (const token of new Lexer().lex(text)) {
    if (++tokens > limits.tokens) return { excess: 'tokens', tokens };
    // The parser calls itself for each level: [[[[…, and - - - -… on one line.
    if (token === '[' || token === '{') flow++;
    else if (token === ']' || token === '}') flow--;
    dashes =
      token === '-' || token === '?' ? dashes + 1 : token.trim() === '' && !token.includes('\n') ? dashes : 0;
    if (flow > limits.depth || dashes > limits.depth) return { excess: 'depth', tokens };
  }
  return { excess: null, tokens };
}

const blank = /\s/;

/** Where in `text` the character at `offset` of a scalar's value is written. */
function offsetInSource(text: string, node: Scalar<string>, offset: number): number {
  const value = node.value;
  const [start, end] = node.range ?? [0, 0];
  let at = start;
  if (node.type === 'BLOCK_LITERAL' || node.type === 'BLOCK_FOLDED') {
    at = text.indexOf('\n', start) + 1;
  }
  if (node.type === 'BLOCK_LITERAL') return offsetInLiteral(text.slice(at, end), value, offset) + at;
  if (node.type === 'QUOTE_DOUBLE' || node.type === 'QUOTE_SINGLE') at++;

  // Value and source are walked side by side: they differ in escapes, and in white space where lines fold.
  let seen = 0;
  while (seen < offset && at < end) {
    const escaped =
      node.type === 'QUOTE_DOUBLE' ? /^\\(x..|u.{4}|U.{8}|\r?\n\s*|.)/s.exec(text.slice(at, at + 200)) : null;
    if (escaped) {
      at += escaped[0].length;
      if (!blank.test(escaped[0][1]!)) seen++;
    } else if (node.type === 'QUOTE_SINGLE' && text.startsWith("''", at)) {
      at += 2;
      seen++;
    } else if (value[seen] === text[at] && text[at] !== '\n') {
      at++;
      seen++;
    } else if (blank.test(text[at]!)) {
      while (at < end && blank.test(text[at]!)) at++;
      while (seen < offset && blank.test(value[seen]!)) seen++;
    } else {
      at++;
      seen++;
    }
  }
  if (!blank.test(value[offset] ?? '')) {
    while (at < end && blank.test(text[at]!)) at++;
  }
  return at;
}

/** A literal block's lines are its value's lines, each behind the same indentation. */
function offsetInLiteral(block: string, value: string, offset: number): number {
  const depth = (text: string) =>
    /^ */.exec(text.split('\n').find((line) => line.trim() !== '') ?? '')![0].length;
  const indentation = depth(block) - depth(value);
  const before = value.slice(0, offset).split('\n');
  let at = 0;
  for (let line = 1; line < before.length; line++) at = block.indexOf('\n', at) + 1;
  return at + indentation + before.at(-1)!.length;
}
