"""What a launch has to show: experiments, summaries and the ablation table."""
