import { checkAgentUsers, watchAgentUsers } from '@cde/api/agent.ts';
import { type AccessCheck, makeAccessCheck } from '@cde/tunnel/auth/access-check.ts';
import { type RevocationWatch, watchRevocations } from '@cde/tunnel/auth/revocation.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import { describeFailure, type ServerClient } from './server/client.ts';
import type { Usernames } from './usernames.ts';

/** Asks the server before the first stream of a session, and learns the users' names. */
export function makeUserCheck(options: {
  client: ServerClient;
  usernames: Usernames;
  print: (text: string) => void;
  clock: Clock;
}): AccessCheck {
  const { client, usernames, print, clock } = options;
  return makeAccessCheck({
    async ask(users, signal) {
      const reply = await client.call(checkAgentUsers, { body: { users }, signal });
      // Servers of earlier releases send no names.
      usernames.add(reply.usernames ?? {});
      return reply.endUsers;
    },
    onUnavailable: (error) =>
      print(`cannot check access; accepting valid tickets: ${describeFailure(error)}`),
    clock,
  });
}

/** No satellite sees sessions over direct paths, so the agent must end those of revoked users itself. */
export function watchUsers(options: {
  longPollClient: ServerClient;
  hosting: { users: () => string[]; endUser: (userId: string) => void };
  print: (text: string) => void;
  signal: AbortSignal;
  clock: Clock;
}): RevocationWatch {
  const { longPollClient, hosting, print, signal, clock } = options;
  return watchRevocations({
    users: hosting.users,
    poll: async (users, signal) =>
      (await longPollClient.call(watchAgentUsers, { body: { users }, signal })).endUsers,
    revoke(userId) {
      print("a user's access was revoked: ended their sessions");
      hosting.endUser(userId);
    },
    signal,
    clock,
  });
}
