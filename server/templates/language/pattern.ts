import { RE2JS } from 're2js';

/**
 * A value that has a pattern is at most this long, and the patterns of a template have at most this many
 * instructions together: RE2 matches in (length × instructions) steps at worst, a few ms at these limits.
 */
export const maxMatchedLength = 512;
export const maxProgramSize = 400;

interface CompiledPattern {
  /** Whether the whole value matches. */
  matches(value: string): boolean;
  /** Instructions, at least one. */
  size: number;
}
type Result = CompiledPattern | { message: string; hint?: string };

/** The same few patterns are asked for again and again, once for each option and value. */
const compiled = new Map<string, Result>();
const maxCachedPatterns = 500;

/**
 * Compiles a parameter's `pattern`. RE2 matches in linear time, so that no pattern can hang the server;
 * JavaScript must understand it too, since the dashboard's form checks with it.
 * @returns the pattern, or why it is refused
 */
export function compilePattern(pattern: string): Result {
  const known = compiled.get(pattern);
  if (known) return known;
  const result = compile(pattern);
  if (compiled.size >= maxCachedPatterns) compiled.clear();
  compiled.set(pattern, result);
  return result;
}

const tooLarge = {
  message: 'is too large a regular expression',
  hint: 'limit the length with minLength and maxLength instead of counts such as {1,200}',
};

function compile(pattern: string): Result {
  // Counts are written out by RE2: (x{30}){30} is 900 copies, and takes as long to compile.
  if (expandedSize(pattern) > maxProgramSize) return tooLarge;
  let re2: RE2JS;
  try {
    re2 = RE2JS.compile(pattern);
  } catch (error) {
    const reason = (error as Error).message.replace('error parsing regexp: ', '');
    return {
      message: `is not a regular expression that can be used here: ${reason}`,
      hint: /Perl syntax|escape sequence: `\\\d/.test(reason)
        ? 'look-around and back-references are not available (RE2 syntax)'
        : undefined,
    };
  }
  try {
    new RegExp(pattern, 'u');
  } catch (error) {
    return {
      message: `is not a regular expression to the browser: ${(error as Error).message.replace(/^.*: /, '')}`,
      hint: 'use what RE2 and JavaScript have in common',
    };
  }
  const size = re2.programSize();
  if (size > maxProgramSize) return tooLarge;
  return { matches: (value) => value.length <= maxMatchedLength && re2.matches(value), size };
}

/** About how many atoms a pattern has once its counts are written out. */
function expandedSize(pattern: string): number {
  const groups: number[] = [0];
  let last = 0;
  for (const [token, , most] of pattern.matchAll(
    /\\(?:[pP]\{[^}]*\}|.)|\[\^?\]?(?:\\.|[^\]])*\]|\{(\d+)(?:,(\d*))?\}|[\s\S]/g,
  )) {
    if (token === '(') {
      groups.push(0);
      last = 0;
    } else if (token === ')') {
      last = groups.length > 1 ? groups.pop()! : 0;
      groups[groups.length - 1]! += last;
    } else if (/^\{\d/.test(token)) {
      const count = Math.max(1, Number(token.slice(1).split(/[,}]/)[0]), Number(most || 0));
      groups[groups.length - 1]! += last * (count - 1);
      last *= count;
    } else {
      last = 1;
      groups[groups.length - 1]! += 1;
    }
  }
  return groups.reduce((sum, size) => sum + size, 0);
}
