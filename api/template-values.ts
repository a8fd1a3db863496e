import { z } from 'zod';
import { boundedRecord } from './names.ts';
import { Figure } from './template-parameters.ts';

/** Environment variables; a value can contain an expression. */
export const Env = boundedRecord(
  z
    .string()
    .max(200)
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
  z.union([z.string().max(32_768), Figure, z.boolean()]),
  200,
);

/** A number, a quantity such as 2Gi, or an expression. */
export const Amount = z.union([z.string().max(400), Figure]);
