/** What PostgreSQL does not take within JSON: a NUL character, or half a character. */
export const isUnstorable = (text: string) => text.includes('\0') || !text.isWellFormed();
