import { parseArgs } from 'node:util';
import type { z } from 'zod';
import './validation-messages.ts';

/** One setting of a program: a flag (`--` and its key in kebab case) or an environment variable. */
export interface Setting {
  env: string;
  schema: z.ZodType;
  help: string;
  default?: string | undefined;
  /** Its value is not repeated in errors. */
  isSecret?: boolean;
}

/** What `readSettings` returns: settings without a default may be undefined. */
export type SettingValues<S extends Record<string, Setting>> = {
  [K in keyof S]: S[K] extends { default: string }
    ? z.output<S[K]['schema']>
    : z.output<S[K]['schema']> | undefined;
};

/** A setting is invalid; a program's `main.ts` prints the message and hint and exits with 2. */
export class SettingsError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string) {
    super(message);
    this.name = 'SettingsError';
    this.hint = hint;
  }
}

export const kebabCase = (key: string) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Reads flags, then the environment, then defaults. Throws SettingsError at the first invalid setting. */
export function readSettings<S extends Record<string, Setting>>(
  settings: S,
  args: string[],
  env: Record<string, string | undefined>,
): SettingValues<S> {
  const flags = parseFlags(Object.keys(settings), args);
  const values: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries(settings)) {
    const flag = flags[kebabCase(key)];
    // Compose files and CI systems pass an empty variable for an unset one.
    const text = typeof flag === 'string' ? flag : env[setting.env] || setting.default;
    if (text === undefined) continue;
    const parsed = setting.schema.safeParse(text);
    if (!parsed.success) {
      const source = typeof flag === 'string' ? `--${kebabCase(key)}` : setting.env;
      const value = setting.isSecret ? '' : ` (${JSON.stringify(text)})`;
      throw new SettingsError(
        `${source} is invalid${value}: ${parsed.error.issues[0]?.message}.`,
        `${setting.help}.`,
      );
    }
    values[key] = parsed.data;
  }
  return values as SettingValues<S>;
}

function parseFlags(keys: string[], args: string[]): Record<string, unknown> {
  const options = Object.fromEntries(keys.map((key) => [kebabCase(key), { type: 'string' as const }]));
  try {
    return parseArgs({ args, options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new SettingsError((error as Error).message, 'Run with --help for the list of settings.');
  }
}

/** The settings for `--help`, one per line. */
export function describeSettings(
  settings: Record<string, Setting>,
  widths: { flag: number; env: number },
): string {
  return Object.entries(settings)
    .map(([key, setting]) => {
      const fallback = setting.default ? ` (default ${setting.default})` : '';
      return `  --${kebabCase(key).padEnd(widths.flag)} ${setting.env.padEnd(widths.env)} ${setting.help}${fallback}`;
    })
    .join('\n');
}
