import { isMap, LineCounter, parseDocument } from 'yaml';
import '@cde/api/validation-messages.ts';
import { z } from 'zod';
import { checkSysctl } from './allowed.ts';
import { hugePages } from './sysctls.ts';

/** The target of a sysctl: exactly this value, or at least this one. */
export type SysctlTarget = { exact: string } | { atLeast: bigint };

/** What a template requires from a node, under one name. */
export interface Profile {
  name: string;
  sysctls: ReadonlyMap<string, SysctlTarget>;
  modules: readonly string[];
  /** Those of `sysctls` that belong to an interface, which can disappear at any time. */
  optional?: ReadonlySet<string>;
  /** Labels of the nodes that it applies to; none: all nodes. */
  nodeSelector: Readonly<Record<string, string>>;
}

/** The name ends a label's key, which Kubernetes limits to 63 characters with `kernel-profile.` before it. */
const nameRule = /^[a-z]([-a-z0-9]{0,46}[a-z0-9])?$/;
const Name = z
  .string()
  .regex(nameRule, 'use at most 48 lower-case letters, digits and dashes, starting with a letter');
/** Only dots: a slash could lead out of /proc/sys. `*` stands for the interfaces of the node. */
const SysctlName = z
  .string()
  .regex(
    /^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+|net\.ipv[46]\.(conf|neigh)\.\*\.[A-Za-z0-9_-]+)$/,
    'write it with dots: fs.aio-max-nr',
  );
const whole = 'write a whole number; one above 9007199254740991 in quotes';
/** A decimal number within the kernel's range. */
const wholeNumber = /^-?\d{1,20}$/;
const atLeastOf = (value: unknown): bigint | null => {
  if (typeof value === 'string') return wholeNumber.test(value) ? BigInt(value) : null;
  return Number.isSafeInteger(value) ? BigInt(value as number) : null;
};
/** One rule at a time, so that the admin reads what is wrong and not everything that could be. */
const Value = z.unknown().transform((value, context): SysctlTarget => {
  const refuse = (message: string) => {
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  };
  if (typeof value === 'number')
    return Number.isSafeInteger(value) ? { exact: String(value) } : refuse(whole);
  if (typeof value === 'string') {
    const exact = value.trim().replace(/[ \t]+/g, ' ');
    return /^[\x20-\x7e]{1,200}$/.test(exact)
      ? { exact }
      : refuse('write one line of at most 200 characters');
  }
  if (typeof value !== 'object' || value === null || Object.keys(value).join() !== 'atLeast')
    return refuse('write a number, a text, or { atLeast: NUMBER }');
  const atLeast = atLeastOf((value as { atLeast: unknown }).atLeast);
  return atLeast === null ? refuse(`atLeast: ${whole}`) : { atLeast };
});
const Selector = z.record(
  z.string().regex(/^([a-z0-9.-]{1,253}\/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/, 'write a label'),
  z.string().regex(/^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/, "write a label's value, in quotes"),
);
const choices = <const Choice extends string>(...values: Choice[]) =>
  z.enum(values, `write one of ${values.join(', ')}`).optional();
const HugePages = z.strictObject({
  enabled: choices('always', 'madvise', 'never'),
  defrag: choices('always', 'defer', 'defer+madvise', 'madvise', 'never'),
});
const ProfileBody = z.strictObject({
  sysctls: z.record(SysctlName, Value).default({}),
  transparentHugePages: HugePages.default({}),
  modules: z
    .array(z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'write the name of a kernel module: br_netfilter'))
    .max(64)
    .default([]),
  nodeSelector: Selector.default({}),
});
const File = z.strictObject({
  allow: z
    .array(
      z
        .string()
        .regex(/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?$/, 'write a sysctl, or a family: net.ipv6.*'),
    )
    .default([]),
  profiles: z.record(Name, ProfileBody).default({}),
});

type Path = readonly PropertyKey[];

/**
 * Reads the file of profiles. Each fault is a line for the admin: the position in the file, what is wrong, and what is allowed.
 */
export function readProfiles(source: string): { profiles: Profile[] } | { faults: string[] } {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${line}:${col}`;
  };
  if (document.errors.length > 0)
    return { faults: document.errors.map(({ pos, message }) => `${at(pos[0])} ${message}`) };
  /** The position of a path, or of the part of it that exists: of the key, because that is what an admin looks for. */
  const place = (path: Path): string => {
    for (let length = path.length; length > 0; length--) {
      const parent = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
      if (isMap(parent)) {
        const pair = parent.items.find(({ key }) => String(key) === String(path[length - 1]));
        const range = (pair?.key as { range?: [number, number, number] } | undefined)?.range;
        if (range) return at(range[0]);
      }
      const node = document.getIn(path.slice(0, length), true) as
        | { range?: [number, number, number] }
        | undefined;
      if (node?.range) return at(node.range[0]);
    }
    return '1:1';
  };
  const written = document.toJS() ?? {};
  const parsed = File.safeParse(written);
  if (!parsed.success)
    return {
      faults: parsed.error.issues.map((issue) => {
        const path = issue.code === 'unrecognized_keys' ? [...issue.path, issue.keys[0]!] : issue.path;
        return `${place(path)} ${path.map(String).join(' › ')}: ${words(issue)}`;
      }),
    };
  const faults: string[] = [];
  const profiles = Object.entries(parsed.data.profiles).map(
    ([name, { transparentHugePages, ...body }]): Profile => {
      for (const sysctl of Object.keys(body.sysctls)) {
        const refused = checkSysctl(sysctl, parsed.data.allow);
        if (refused)
          faults.push(
            `${place(['profiles', name, 'sysctls', sysctl])} profiles › ${name}: ${refused.message} (${refused.hint})`,
          );
      }
      const choices = Object.entries(transparentHugePages).map(
        ([file, exact]) => [hugePages + file, { exact }] as const,
      );
      return { name, ...body, sysctls: new Map([...Object.entries(body.sysctls), ...choices]) };
    },
  );
  return faults.length > 0 ? { faults } : { profiles };
}

/** Of a key or a choice, our rule's message and not zod's frame around it. */
function words(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') {
    const known: Record<number, string> = {
      0: 'allow, profiles',
      2: 'sysctls, transparentHugePages, modules, nodeSelector',
    };
    if (issue.path.at(-1) === 'transparentHugePages') return 'not known here (known here: enabled, defrag)';
    return `not known here (known here: ${known[issue.path.length] ?? 'nothing'})`;
  }
  if (issue.code === 'invalid_key') return issue.issues[0]!.message;
  return issue.message;
}
