import { z } from 'zod';
import { Action } from './actions.ts';

/** The body of every reply that is not a success. `code` is stable; docs/errors.md lists them all. */
export const ApiError = z.object({
  code: z.string().describe('Stable, for programs: `workspace-name-taken`'),
  message: z.string().describe('What happened, in one sentence'),
  detail: z.string().optional().describe('Why, with the values that matter'),
  hint: z.string().optional().describe('What to do about it, in words'),
  actions: z.array(Action).optional().describe('What to do about it, as data'),
  requestId: z.string().optional(),
  issues: z
    .array(
      z.object({
        path: z.string(),
        message: z.string(),
        line: z.number().optional(),
        column: z.number().optional(),
      }),
    )
    .optional()
    .describe('One entry for each error in a rejected body or template file'),
});
export type ApiError = z.infer<typeof ApiError>;
