import { getTableName, type SQL, sql } from 'drizzle-orm';
import {
  getTableConfig,
  type IndexedColumn,
  type PgColumn,
  PgDialect,
  PgTable,
  pgTable,
  text,
  uuid,
} from 'drizzle-orm/pg-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestDatabase, type TestDatabase } from '../testing.ts';
import * as diagnosisSchema from './diagnosis-schema.ts';
import * as healthSchema from './health-schema.ts';
import * as idleSchema from './idle-schema.ts';
import * as schema from './schema.ts';

/** The ledger of migrations, which nothing but `migrate` uses. */
const unmapped = ['migrations'];
/** The keys of tables that refer to each other, which Drizzle cannot declare as deferrable. */
const deferred = ['templates_active_version_id_fkey', 'workspaces_current_build_id_fkey'];
/** The schema in which PostgreSQL creates what schema.ts declares, to be described in the same words. */
const declared = 'declared';

const dialect = new PgDialect();
const tables = Object.values<unknown>({
  ...schema,
  ...idleSchema,
  ...diagnosisSchema,
  ...healthSchema,
}).filter((value) => value instanceof PgTable);
const name = (text: string) => `"${text}"`;
const columnList = (columns: PgColumn[]) => columns.map((column) => name(column.name)).join(', ');
const inline = (expression: SQL) => {
  const { sql: text, params } = dialect.sqlToQuery(expression);
  if (params.length > 0) throw new Error(`Use sql.raw for the values in: ${text}`);
  return text;
};

function defaultOf(column: PgColumn): string {
  const { default: value } = column;
  if (value === undefined) return '';
  if (value instanceof Object && 'getSQL' in value) return ` DEFAULT ${inline(value as SQL)}`;
  const literal =
    typeof value !== 'object'
      ? String(value)
      : column.getSQLType() === 'jsonb'
        ? JSON.stringify(value)
        : '{}';
  return ` DEFAULT '${literal}'`;
}

function columnDefinition(column: PgColumn): string {
  const identity = column.generatedIdentity ? ` GENERATED ${column.generatedIdentity.type} AS IDENTITY` : '';
  return [
    `${name(column.name)} ${column.getSQLType()}${defaultOf(column)}${identity}`,
    column.notNull && 'NOT NULL',
    column.primary && 'PRIMARY KEY',
    column.isUnique && 'UNIQUE',
  ]
    .filter(Boolean)
    .join(' ');
}

/** The statements that create what these tables declare. Keys that refer to other tables come last. */
function statements(from: PgTable[]): string[] {
  const configs = from.map(getTableConfig);
  const creations = configs.flatMap(
    ({ name: table, columns, primaryKeys, uniqueConstraints, checks, indexes }) => [
      `CREATE TABLE ${name(table)} (${[
        ...columns.map(columnDefinition),
        ...primaryKeys.map((key) => `PRIMARY KEY (${columnList(key.columns)})`),
        ...uniqueConstraints.map((constraint) => `UNIQUE (${columnList(constraint.columns)})`),
        ...checks.map((check) => `CONSTRAINT ${name(check.name)} CHECK (${inline(check.value)})`),
      ].join(', ')})`,
      ...indexes.map(({ config }) => {
        const parts = (config.columns as IndexedColumn[]).map(
          (column) => `${name(column.name!)}${column.indexConfig?.order === 'desc' ? ' DESC' : ''}`,
        );
        return `CREATE ${config.unique ? 'UNIQUE ' : ''}INDEX ${name(config.name!)} ON ${name(table)} (${parts.join(', ')})${
          config.where ? ` WHERE ${inline(config.where)}` : ''
        }`;
      }),
    ],
  );
  const references = configs.flatMap(({ name: table, foreignKeys }) =>
    foreignKeys.map((key) => {
      const { columns, foreignTable, foreignColumns } = key.reference();
      const constraint = `${table}_${columns.map((column) => column.name).join('_')}_fkey`;
      return `ALTER TABLE ${name(table)} ADD CONSTRAINT ${name(constraint)} FOREIGN KEY (${columnList(columns)})
        REFERENCES ${name(getTableName(foreignTable))} (${columnList(foreignColumns)})
        ON DELETE ${key.onDelete ?? 'no action'} ON UPDATE ${key.onUpdate ?? 'no action'}
        ${deferred.includes(constraint) ? 'DEFERRABLE INITIALLY DEFERRED' : ''}`;
    }),
  );
  return [...creations, ...references];
}

let database: TestDatabase;
beforeAll(async () => {
  database = await makeTestDatabase();
});
afterAll(() => database?.drop());

/** Everything in a PostgreSQL schema, one line each, as PostgreSQL itself describes it. */
async function describeSchema(namespace: string): Promise<string[]> {
  const client = await database.pool.connect();
  try {
    await client.query(`SET search_path = ${namespace}`);
    const { rows } = await client.query<{ line: string }>(
      `WITH tables AS (
         SELECT oid, relname FROM pg_class
          WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p', 'v', 'm') AND NOT relname = ANY ($2)
       )
       SELECT format('%s.%s %s%s%s%s', relname, attname, format_type(atttypid, atttypmod),
                     CASE WHEN attnotnull THEN ' not null' END, ' default ' || pg_get_expr(adbin, adrelid),
                     ' identity ' || nullif(attidentity::text, '')) AS line
         FROM tables
         JOIN pg_attribute ON attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
         LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
       UNION ALL
       SELECT format('%s: %s %s', relname, conname, pg_get_constraintdef(pg_constraint.oid))
         FROM tables JOIN pg_constraint ON conrelid = tables.oid AND contype <> 'n'
       UNION ALL
       SELECT format('%s: %s', relname, replace(replace(pg_get_indexdef(indexrelid), $1 || '.', ''), ' ON ONLY ', ' ON '))
         FROM tables JOIN pg_index ON indrelid = tables.oid
        ORDER BY line`,
      [namespace, unmapped],
    );
    return rows.map(({ line }) => line);
  } finally {
    client.release(true);
  }
}

/** What only one side has: `-` only in the migrations, `+` only in schema.ts. */
async function differences(from: PgTable[] = tables): Promise<string[]> {
  const client = await database.pool.connect();
  try {
    await client.query(
      `DROP SCHEMA IF EXISTS ${declared} CASCADE; CREATE SCHEMA ${declared}; SET search_path = ${declared}`,
    );
    for (const statement of statements(from)) await client.query(statement);
  } finally {
    client.release(true);
  }
  const [migrated, created] = [await describeSchema('public'), await describeSchema(declared)];
  return [
    ...migrated.filter((line) => !created.includes(line)).map((line) => `- ${line}`),
    ...created.filter((line) => !migrated.includes(line)).map((line) => `+ ${line}`),
  ];
}

test('schema.ts and the migrations describe the same database', async () => {
  expect(tables.length).toBeGreaterThan(20);
  expect(await differences()).toEqual([]);
});

test.each([
  ['a column', 'ALTER TABLE users ADD COLUMN age integer', ['- users.age integer']],
  [
    'a default',
    "ALTER TABLE users ALTER COLUMN name SET DEFAULT 'x'",
    ["- users.name text not null default 'x'::text", "+ users.name text not null default ''::text"],
  ],
  [
    'nullability',
    'ALTER TABLE users ALTER COLUMN name DROP NOT NULL',
    ["- users.name text default ''::text", "+ users.name text not null default ''::text"],
  ],
  [
    'an index',
    'CREATE INDEX users_name ON users (name)',
    ['- users: CREATE INDEX users_name ON users USING btree (name)'],
  ],
  [
    'a check',
    'ALTER TABLE users ADD CONSTRAINT named CHECK (username <> name)',
    ['- users: named CHECK ((username <> name))'],
  ],
  ['a table', 'CREATE TABLE extra (id integer)', ['- extra.id integer']],
])('a migration that changes only %s is found', async (_, statement, expected) => {
  const own = database;
  database = await makeTestDatabase();
  try {
    await database.pool.query(statement);
    expect(await differences()).toEqual(expected);
  } finally {
    await database.drop();
    database = own;
  }
});

test('a table, a column and a reference only in schema.ts are found', async () => {
  const extra = pgTable('extra', {
    id: uuid('id').primaryKey(),
    userId: uuid('user_id').references(() => schema.users.id),
    name: text('name').default(sql`current_user`),
  });
  expect(await differences([...tables, extra])).toEqual([
    '+ extra.id uuid not null',
    '+ extra.name text default CURRENT_USER',
    '+ extra.user_id uuid',
    '+ extra: CREATE UNIQUE INDEX extra_pkey ON extra USING btree (id)',
    '+ extra: extra_pkey PRIMARY KEY (id)',
    '+ extra: extra_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)',
  ]);
});
