import { contract } from '@cde/api/testing.ts';
import { expect, test } from 'vitest';
import * as light from './endpoints.ts';

test.each(Object.entries(light))('%s is the contract’s', (name, endpoint) => {
  const full = contract[name];
  expect(full, `the contract has no ${name}`).toBeDefined();
  expect({
    method: endpoint.method,
    path: endpoint.path,
    body: endpoint.body !== undefined,
    idempotent: endpoint.idempotent === true,
  }).toEqual({
    method: full!.method,
    path: full!.path,
    body: full!.body !== undefined,
    idempotent: full!.idempotent === true,
  });
});
