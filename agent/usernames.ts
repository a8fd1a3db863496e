/** Enough for everyone who has a session. */
const maxUsernames = 1000;

/** Names of users with sessions, to say who was active. Tickets name users only by id. */
export class Usernames {
  /** Oldest first. */
  readonly #names = new Map<string, string>();

  add(names: Readonly<Record<string, string>>): void {
    for (const [userId, username] of Object.entries(names)) {
      this.#names.delete(userId);
      this.#names.set(userId, username);
    }
    for (const userId of this.#names.keys()) if (this.#names.size > maxUsernames) this.#names.delete(userId);
  }

  get(userId: string): string | undefined {
    return this.#names.get(userId);
  }
}
