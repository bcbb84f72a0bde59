// The limits: their rules, and one subject of a policy. A subject is named by the parts of the policy's key.

import { z } from 'zod'
import type { LimitStanding, LimitSubject } from '../../core/control.ts'
import { decoded, json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'

const MAX_VALUE_CHARS = 8192
const MAX_UNITS = 2 ** 31

const subject = z.record(
  z.string(),
  z
    .string({ error: 'expected a text' })
    .max(MAX_VALUE_CHARS, { error: `expected at most ${MAX_VALUE_CHARS} characters` }),
  { error: 'expected the parts of the key by name, such as {"ip": "192.0.2.7"}' },
)

const refundRequest = z.strictObject({
  subject,
  units: z
    .int({ error: 'expected a whole number' })
    .min(1, { error: 'expected at least 1' })
    .max(MAX_UNITS, { error: `expected at most ${MAX_UNITS}` }),
})

/** Who it was is in the answer and not in the log: parts of a key may be secrets. */
const changed = (standing: LimitStanding, more: object = {}) => ({
  ...json(standing),
  change: { policy: standing.policy, remaining: standing.remaining, ...more },
})

export const LIMITS: readonly Endpoint[] = [
  {
    method: 'GET',
    path: '/api/limits',
    summary: 'policies: rule, key, routes, decisions since start',
    run: (control) => json(control.limits()),
  },
  {
    method: 'GET',
    path: '/api/limits/:policy',
    summary: 'how one subject stands, named by the parts of the key: ?ip=192.0.2.7&user=...',
    run: (control, query, _client, { policy = '' }) =>
      decoded(subject, query, async (who: LimitSubject) => json(await control.limitStanding(policy, who))),
  },
  {
    method: 'DELETE',
    path: '/api/limits/:policy',
    summary: 'forget what one subject has used, named as above',
    run: (control, query, _client, { policy = '' }) =>
      decoded(subject, query, async (who: LimitSubject) => changed(await control.resetLimit(policy, who))),
  },
  {
    method: 'POST',
    path: '/api/limits/:policy/refund',
    summary: 'give {units} back to {subject: {ip, user, ...}}, never more than it has used',
    run: (control, body, _client, { policy = '' }) =>
      decoded(refundRequest, body, async ({ subject: who, units }) =>
        changed(await control.refundLimit(policy, who, units), { units }),
      ),
  },
  {
    method: 'GET',
    path: '/api/limits/:policy/top',
    summary: 'who has drawn on it the most in the last minutes, as seen by this instance',
    run: async (control, _query, _client, { policy = '' }) => json(await control.limitTop(policy)),
  },
]
