import type { ASTNode } from '@marcbachmann/cel-js';
import { isUnstorable } from './storable.ts';

/**
 * An upper bound on a value, known before there is one. `length`: the characters of a text, the items of
 * a list or map, the digits of a number.
 */
export interface Bound {
  length: number;
  /** Of each item of a list, each key of a map. */
  item?: Bound;
  /** Of each value of a map. */
  value?: Bound;
  /** Of each field of a variable such as `parameters`. */
  fields?: Record<string, Bound>;
}

/** Numbers, booleans and null, as text. */
export const scalarBound: Bound = { length: 32 };

/** What expressions may call; anything else could block (`matches`), or has no use in a template. */
export const expressionFunctions = {
  global: ['size', 'string', 'int', 'double', 'bool'],
  method: [
    'contains',
    'startsWith',
    'endsWith',
    'indexOf',
    'lastIndexOf',
    'substring',
    'lowerAscii',
    'upperAscii',
    'trim',
    'split',
    'join',
    'size',
  ],
  macro: ['map', 'filter', 'all', 'exists', 'exists_one'],
} as const;

/** An expression, or a part of it, that is refused; `offset` is within the expression. */
export class CostError extends Error {
  readonly offset: number;
  readonly hint: string | undefined;
  constructor(offset: number, message: string, hint?: string) {
    super(message);
    this.offset = offset;
    this.hint = hint;
  }
}

/** One unit is one step of the interpreter, some 50 ns: 50,000 units take no more than a few ms. */
const costLimit = 50_000;

/**
 * How much evaluating an expression can cost at most, whatever the developer gives as parameters. CEL
 * always ends, but nested loops and growing texts can take hours; so each expression is bounded when the
 * template is checked, and never needs a watchdog when it runs.
 * @throws CostError when it uses what is not available, or can cost more than `costLimit`
 */
export function boundExpression(
  ast: ASTNode,
  variables: Record<string, Bound>,
): { cost: number; bound: Bound } {
  let cost = 0;
  const spend = (node: ASTNode, units: number) => {
    cost += units;
    if (!(cost <= costLimit)) {
      throw new CostError(
        node.start,
        'this could take too long to evaluate',
        'use fewer nested loops, or give the parameters a maxLength and maxItems',
      );
    }
  };
  return { bound: visit(ast, variables, 1), cost };

  /** `times`: how often the loops around the node evaluate it. */
  function visit(node: ASTNode, scope: Record<string, Bound>, times: number): Bound {
    const bound = boundOf(node, scope, times);
    spend(node, times * (1 + weight(bound) / 64));
    return bound;
  }

  function boundOf(node: ASTNode, scope: Record<string, Bound>, times: number): Bound {
    const all = (nodes: readonly ASTNode[]) => nodes.map((each) => visit(each, scope, times));
    switch (node.op) {
      case 'value':
        if (node.args instanceof Uint8Array) throw new CostError(node.start, 'bytes are not available here');
        if (typeof node.args === 'string' && isUnstorable(node.args))
          throw new CostError(node.start, 'the text holds a NUL character or half a character');
        return typeof node.args === 'string' ? { length: node.args.length } : scalarBound;
      case 'id': {
        const variable = Object.hasOwn(scope, node.args) ? scope[node.args] : undefined;
        if (!variable) throw new CostError(node.start, `"${node.args}" is not available here`);
        return variable;
      }
      case '.':
      case '[]': {
        const object = visit(node.args[0], scope, times);
        if (object.fields) {
          const key =
            typeof node.args[1] === 'string'
              ? node.args[1]
              : node.args[1].op === 'value' && node.args[1].args;
          const field =
            typeof key === 'string' && Object.hasOwn(object.fields, key) ? object.fields[key] : undefined;
          // A computed name: any of them.
          return field ?? largest(Object.values(object.fields));
        }
        if (typeof node.args[1] !== 'string') visit(node.args[1], scope, times);
        return object.value ?? object.item ?? object;
      }
      case '+': {
        const [a, b] = all(node.args) as [Bound, Bound];
        const item = a.item && b.item ? largest([a.item, b.item]) : (a.item ?? b.item);
        return { length: a.length + b.length, item };
      }
      case '?:': {
        const [, a, b] = all(node.args) as [Bound, Bound, Bound];
        return largest([a, b]);
      }
      case 'list':
        return { length: node.args.length, item: largest(all(node.args)) };
      case 'map':
        return {
          length: node.args.length,
          item: largest(all(node.args.map(([key]) => key))),
          value: largest(all(node.args.map(([, value]) => value))),
        };
      case '-':
      case '*':
      case '/':
      case '%':
      case '==':
      case '!=':
      case '<':
      case '<=':
      case '>':
      case '>=':
      case '||':
      case '&&':
        all(node.args);
        return scalarBound;
      case 'in': {
        const [needle, hay] = all(node.args) as [Bound, Bound];
        spend(node, (times * weight(hay) * (1 + needle.length)) / 64);
        return scalarBound;
      }
      case '!_':
      case '-_':
        visit(node.args, scope, times);
        return scalarBound;
      case 'call': {
        const [name, args] = node.args;
        if (!(expressionFunctions.global as readonly string[]).includes(name)) throw unavailable(node, name);
        const [first] = all(args);
        return name === 'string' ? { length: Math.max(first?.length ?? 0, scalarBound.length) } : scalarBound;
      }
      case 'rcall': {
        const [name, receiver, args] = node.args;
        const on = visit(receiver, scope, times);
        if ((expressionFunctions.macro as readonly string[]).includes(name)) {
          return boundLoop(node, name, on, args, scope, times);
        }
        if (!(expressionFunctions.method as readonly string[]).includes(name)) throw unavailable(node, name);
        return boundMethod(node, name, on, all(args), times);
      }
      default:
        throw new CostError(node.start, `"${node.op}" is not available here`);
    }
  }

  function boundLoop(
    node: ASTNode,
    name: string,
    on: Bound,
    args: readonly ASTNode[],
    scope: Record<string, Bound>,
    times: number,
  ): Bound {
    const [variable, ...bodies] = args;
    if (variable?.op !== 'id') throw new CostError(node.start, `${name}(…) wants a variable name first`);
    const inner = { ...scope, [variable.args]: on.item ?? on };
    const bounds = bodies.map((body) => visit(body, inner, times * Math.max(1, on.length)));
    if (name === 'map') return { length: on.length, item: bounds.at(-1) ?? scalarBound };
    return name === 'filter' ? { length: on.length, item: on.item ?? on } : scalarBound;
  }

  function boundMethod(node: ASTNode, name: string, on: Bound, args: Bound[], times: number): Bound {
    switch (name) {
      case 'split':
        return { length: on.length + 1, item: { length: on.length } };
      case 'join':
        return { length: on.length * ((on.item?.length ?? 0) + (args[0]?.length ?? 0)) };
      case 'substring':
      case 'trim':
        return { length: on.length };
      case 'lowerAscii':
      case 'upperAscii':
        // Upper case can be three times as long: ΐ becomes three characters.
        return { length: on.length * 3 };
      default:
        // A search compares the needle at each position, at worst.
        spend(node, (times * on.length * (args[0]?.length ?? 0)) / 64);
        return scalarBound;
    }
  }
}

function unavailable(node: ASTNode, name: string): CostError {
  return new CostError(
    node.start,
    `the function "${name}" is not available here`,
    name === 'matches'
      ? "check a text with the parameter's pattern, or with contains, startsWith and endsWith"
      : `available: ${[...expressionFunctions.global, ...expressionFunctions.method.slice(0, -1), ...expressionFunctions.macro].join(', ')}`,
  );
}

/** The characters of a value, all items together. */
function weight(bound: Bound): number {
  if (bound.fields) return 0;
  if (!bound.item) return bound.length;
  return bound.length * (1 + weight(bound.item) + (bound.value ? weight(bound.value) : 0));
}

function largest(bounds: Bound[]): Bound {
  return bounds.reduce(
    (a, b) => ({
      length: Math.max(a.length, b.length),
      item: a.item && b.item ? largest([a.item, b.item]) : (a.item ?? b.item),
      value: a.value && b.value ? largest([a.value, b.value]) : (a.value ?? b.value),
    }),
    { length: 0 },
  );
}
