import * as activity from '@cde/api/activity.ts';
import * as clusters from '@cde/api/clusters.ts';
import * as identity from '@cde/api/identity.ts';
import * as ports from '@cde/api/ports.ts';
import * as satellites from '@cde/api/satellites.ts';
import * as templates from '@cde/api/templates.ts';
import * as workspaces from '@cde/api/workspaces.ts';
import { expect, test } from 'vitest';
import * as light from './endpoints.ts';

const contract: Record<string, unknown> = {
  ...activity,
  ...clusters,
  ...identity,
  ...ports,
  ...satellites,
  ...templates,
  ...workspaces,
};

test.each(Object.entries(light))('%s is the contract’s', (name, endpoint) => {
  const full = contract[name] as typeof endpoint | undefined;
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
