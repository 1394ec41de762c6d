"""From images to what methods run on: node sets, extracted once and kept."""
