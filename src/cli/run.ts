// `weirgate run`: the gateway, in the foreground.

import { Command } from 'commander'
import { formatAddress } from '../server/options.ts'
import { configOption } from './files.ts'
import { serve } from './serve.ts'

export const runCommand = () =>
  new Command('run')
    .description('run the gateway')
    .addOption(configOption())
    .action(async ({ config }: { config: string }) => {
      const { listen, admin } = await serve({ file: config, env: process.env, onHangup: 'reload' })
      // Not on stdout: that is the log's.
      console.error(`weirgate listens on http://${formatAddress(listen)}, admin on http://${formatAddress(admin)}`)
    })
