// `weirgate free`: lets an Idempotency-Key of a running gateway be used again.

import { Command } from 'commander'
import type { KeyFreed } from '../core/control.ts'
import { askAdmin } from './admin-client.ts'
import { configOf, configOption } from './files.ts'

export const freeCommand = () =>
  new Command('free')
    .description(
      'free an Idempotency-Key of which nobody knows whether its request was carried out, so that it can be sent again',
    )
    .argument('<route>', 'its name, as the log has it: "POST /api/orders"')
    .argument('<key>', 'as requests send it; freed for all who have sent it')
    .addOption(configOption())
    .action(async (route: string, key: string, { config }: { readonly config: string }) => {
      const answer = await askAdmin(configOf(config).admin, 'POST', '/api/idempotency/free', 'freed', { route, key })
      console.log(JSON.stringify(answer))
      const { freed, shared } = answer as KeyFreed
      if (shared === false) throw new Error('Redis did not answer in time, so nothing is certain: ask again.')
      if (freed === 0) throw new Error('Nothing to free: no request with this key on this route is of unknown outcome.')
    })
