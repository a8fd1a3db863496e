import { z } from 'zod';
import { Action } from './actions.ts';

/** `error`: something does not work. `warning`: it works badly, or will stop to. `info`: worth knowing. */
export const severities = ['error', 'warning', 'info'] as const;

/** Something that a diagnosis found, as data: `cde doctor` and health pages word and order it in one way. */
export const Finding = z.object({
  code: z.string().describe('Stable, for programs'),
  severity: z.enum(severities),
  message: z.string().describe('What is wrong, as a sentence'),
  detail: z.string().optional().describe('Why, or what it was seen by'),
  hint: z.string().optional().describe('What to do'),
  actions: z.array(Action).optional(),
  dependsOn: z
    .array(z.string())
    .default([])
    .describe(
      'Codes of findings that explain this one: if one of them was made too, this one is a consequence',
    ),
});
export type Finding = z.infer<typeof Finding>;
