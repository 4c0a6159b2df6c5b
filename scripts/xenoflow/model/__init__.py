"""XenoFlow's figures 4 to 8, regenerated from the software eSwitch's model of its testbed."""
