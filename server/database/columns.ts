import { sql } from 'drizzle-orm';
import { type AnyPgColumn, check, customType, timestamp } from 'drizzle-orm/pg-core';

export const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' });
/** A check with the name that PostgreSQL gives to it. The values of the API's enums, so that a new one needs a migration. */
export const oneOf = (table: string, column: AnyPgColumn, values: readonly string[]) =>
  check(
    `${table}_${column.name}_check`,
    sql`${column} IN (${sql.raw(values.map((value) => `'${value}'`).join(', '))})`,
  );
export const timestamptz = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' });
