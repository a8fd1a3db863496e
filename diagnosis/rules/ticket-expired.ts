import { type Rule, sure } from '../rule.ts';

const words: Record<string, string> = {
  'ticket-expired': 'the permission to continue it had expired',
  'ticket-refused': 'the server refused to continue it',
  'access-ended': 'your access was revoked',
};

export const ticketExpired: Rule = {
  cause: 'ticket-expired',
  judge(spell) {
    const word = words[spell.reason ?? ''];
    if (spell.kind !== 'ended' || word === undefined) return null;
    return { confidence: sure.certain, because: word, evidence: [`The session ended with ${spell.reason}.`] };
  },
};
