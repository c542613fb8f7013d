"""What every other folder uses: errors, files, devices, processes, seeds, images."""
